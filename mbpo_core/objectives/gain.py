"""Image Information Gain: how much the image, not the text, makes a response likely."""

from __future__ import annotations

from torch import Tensor

from mbpo_core.errors import ShapeError


def token_gains(logprobs: Tensor, blind_logprobs: Tensor) -> Tensor:
    """The gain of each token.

        gain_t = log pi(y_t | image, x, y_<t) - log pi(y_t | blind, x, y_<t)

    Args:
        logprobs: (T,) float, nats, with the image, teacher-forced.
        blind_logprobs: (T,) float, nats, the same tokens without the image.

    Returns:
        (T,) float, nats; positive where the image helps.

    Raises:
        ShapeError: the two differ in shape, are not vectors, or are empty.

    Source: recipe 1.3, equation (1), before the mean.
    """
    if logprobs.shape != blind_logprobs.shape or logprobs.dim() != 1 or logprobs.numel() == 0:
        raise ShapeError(
            f"log-probs have shapes {tuple(logprobs.shape)} and {tuple(blind_logprobs.shape)}",
            where="objectives.gain",
            expected="two vectors (T,) of the same tokens, T >= 1",
        )
    return logprobs - blind_logprobs


def information_gain(logprobs: Tensor, blind_logprobs: Tensor) -> Tensor:
    """Image Information Gain of a response: the mean of its tokens' gains.

        gain = (1 / T) sum_t [ log pi(y_t | image, x, y_<t) - log pi(y_t | blind, x, y_<t) ]

    A mean, because a sum would select long answers.

    Args:
        logprobs: (T,) float, nats, with the image.
        blind_logprobs: (T,) float, nats, without.

    Returns:
        Scalar, nats per token.

    Raises:
        ShapeError: as `token_gains`.

    Source: MBPO arXiv:2506.08022; form of recipe 1.3, equation (1).
    """
    return token_gains(logprobs, blind_logprobs).mean()
