"""How evenly a policy has learned from its two teachers: rejected words, and wrong images."""

from __future__ import annotations


def reward_balance(text_margin: float, image_margin: float) -> float | None:
    """The smaller margin over the larger.

        B = min(r_text, r_image) / max(r_text, r_image)

    r_text is the implied reward of chosen over rejected (clean image), r_image that of chosen over itself under the
    rejected image; near 1 both move alike, near 0 the policy follows the text alone. Negative where one margin is.

    Args:
        text_margin: r_text, in units of implied reward.
        image_margin: r_image, in the same.

    Returns:
        B <= 1; None where neither margin is positive.

    Source: MFPO arXiv:2410.15334, Fig. 2, as one number (recipe 5.7).
    """
    larger = max(text_margin, image_margin)
    return min(text_margin, image_margin) / larger if larger > 0 else None
