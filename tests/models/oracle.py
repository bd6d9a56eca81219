"""What a model itself says: its own `forward` on left-padded rows, each with its own copy of prompt and images.

Nothing here uses the code under test beyond the data types, so that equality with it means something.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mbpo_core.models.groups import ImageInput, Prompt, PromptGroup
from mbpo_core.models.policy import Policy


def model_inputs(policy: Policy, images: Sequence[ImageInput], ids: Tensor) -> dict[str, Tensor]:
    """Pixel values, and what else the family's `forward` wants to know about the images in rows ids (B, L)."""
    if not images:
        return {}
    pixels = [image.pixel_values for image in images]
    if policy.model.config.model_type in ("idefics3", "smolvlm"):
        # One row of tiles serves every prompt; the offset keeps tiles of zeros from being skipped as padding.
        return {"pixel_values": torch.cat(pixels)[None] + torch.finfo(torch.float32).tiny}
    if policy.model.config.model_type == "internvl":
        return {"pixel_values": torch.cat(pixels)}
    if policy.model.config.model_type == "gemma3":
        seen = (ids == policy.model.config.image_token_id).int()
        return {"pixel_values": torch.stack(pixels), "token_type_ids": seen}
    if images[0].size is not None:
        sizes = torch.tensor([image.size for image in images])
        return {"pixel_values": pad_sequence(pixels, batch_first=True), "image_sizes": sizes}
    if images[0].grid is None:
        return {"pixel_values": torch.stack(pixels)}
    return {
        "pixel_values": torch.cat(pixels),
        "image_grid_thw": torch.tensor([image.grid for image in images]),
        "mm_token_type_ids": (ids == policy.model.config.image_token_id).int(),
    }


def own_logits(policy: Policy, rows: Sequence[tuple[Sequence[int], Sequence[ImageInput]]]) -> Tensor:
    """(B, L, V) logits of token ids with images; rows are padded on the left."""
    length = max(len(tokens) for tokens, _ in rows)
    ids = torch.full((len(rows), length), policy.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, (tokens, _) in enumerate(rows):
        ids[row, length - len(tokens) :] = torch.tensor(tokens)
        mask[row, length - len(tokens) :] = 1
    images = [image for _, shown in rows for image in shown]
    logits: Tensor = policy.model(input_ids=ids, attention_mask=mask, **model_inputs(policy, images, ids)).logits
    return logits


def own_logprobs(policy: Policy, groups: Sequence[PromptGroup], temperature: float = 1.0) -> list[list[Tensor]]:
    """[P][K] log-probs (T,) of every completion, differentiable; image ids take part in no softmax."""
    rows = [([*g.prompt.token_ids, *completion], g.prompt.images) for g in groups for completion in g.completions]
    logits = own_logits(policy, rows) / temperature
    banned = torch.zeros(logits.shape[-1], dtype=torch.bool)
    banned[policy.banned_token_ids] = True
    every = logits.masked_fill(banned, -torch.inf).log_softmax(-1)
    found = iter(every)
    return [[_picked(next(found), completion) for completion in group.completions] for group in groups]


def own_positions(policy: Policy, prompt: Prompt) -> Tensor:
    """(A, P) position ids as the model would find them by itself."""
    ids = torch.tensor([prompt.token_ids])
    inner: Any = policy.model.model
    if not prompt.images or not hasattr(inner, "get_rope_index"):
        return torch.arange(ids.shape[1])[None]
    known = model_inputs(policy, prompt.images, ids)
    positions, _ = inner.get_rope_index(ids, known["mm_token_type_ids"], image_grid_thw=known["image_grid_thw"])
    found: Tensor = positions[:, 0]
    return found


def own_blindfolded(policy: Policy, prompt: Prompt, completion: list[int]) -> Tensor:
    """(T,) log-probs of one whole row under a dense mask: text may not attend to image positions."""
    whole = Prompt([*prompt.token_ids, *completion], prompt.images)
    ids = torch.tensor([whole.token_ids])
    length = ids.shape[1]
    is_image = ids[0] == policy.model.config.image_token_id
    seen = torch.ones(length, length, dtype=torch.bool).tril() & ~(~is_image[:, None] & is_image[None, :])
    mask: Any = _additive(seen)
    if window := getattr(policy.model.config.get_text_config(), "sliding_window", None):
        place = torch.arange(length)
        near = place[None, :] > place[:, None] - window
        mask = {"full_attention": mask, "sliding_attention": _additive(seen & near)}
    positions = own_positions(policy, whole)
    logits = policy.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions if len(positions) == 1 else positions[:, None],
        **model_inputs(policy, whole.images, ids),
    ).logits[0]
    logits[:, policy.banned_token_ids] = -torch.inf
    return _picked(logits.log_softmax(-1), completion)


def _additive(seen: Tensor) -> Tensor:
    """(1, 1, L, L) mask of (L, L) bool."""
    return torch.zeros(1, 1, *seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)


def _picked(logprobs: Tensor, completion: Sequence[int]) -> Tensor:
    """Of one row (L, V) that ends with the completion."""
    places = logprobs[-len(completion) - 1 : -1]
    return places.gather(-1, torch.tensor(completion)[:, None])[:, 0]
