"""Log-probabilities of given completions, per token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mbpo_core.errors import DataError, ShapeError
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.layout import Rows, encode_images, lay_out, split_features, visible
from mbpo_core.models.policy import Policy
from mbpo_core.records import Blind


def group_logprobs(
    policy: Policy,
    groups: Sequence[PromptGroup],
    *,
    blind: Blind | None = None,
    temperature: float = 1.0,
    grad: bool = False,
    rows: int = 64,
) -> list[list[Tensor]]:
    """Per-token log-probabilities of every completion of every group.

        l_t = log softmax(z_t / temperature)[y_t]    over all ids that are not banned

    z_t are the logits that follow the prompt and y_<t. Softmax in float32. One image encoding a group.

    Args:
        policy: scores; parameters get gradients only where they ask for them and `grad` is True.
        groups: P groups of K_p completions; completions end in EOS where the text is finished.
        blind: how the model is kept from seeing the image; None lets it see.
        temperature: > 0, as the completions were sampled.
        grad: keep the graph.
        rows: completions a forward pass (whole groups; a larger group goes alone).

    Returns:
        [P][K_p] float32 tensors (T,) on the policy's device, nats.

    Raises:
        DataError: if a completion holds a banned token id.

    Source: recipe 1.3, eq. (1), both of its terms.
    """
    if temperature <= 0:
        raise ShapeError(f"temperature must be > 0 to score, got {temperature}")
    results: list[list[Tensor]] = []
    with torch.set_grad_enabled(grad):
        for chunk in _chunks(groups, rows):
            results += _score_chunk(policy, chunk, blind, temperature)
    return results


def image_logprobs(
    policy: Policy, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]], images: Tensor
) -> Tensor:
    """Mean log-probability of one completion a prompt, differentiable in the image.

        m_b = (1 / T_b) sum_t log p(y_bt | images_b, x_b, y_b<t)

    Args:
        policy: frozen; its parameters get no gradient.
        prompts: B prompts; their own pixel values are not used, only how many images each has.
        completions: B lists of token ids, ragged.
        images: (M, 3, H, W) float in [0, 1] at native size, the prompts' images in order.

    Returns:
        (B,) float32, nats per token. Rows do not mix: the gradient of sum(m) with respect to
        images of prompt b is the gradient of m_b.

    Source: recipe 1.4, eq. (2).
    """
    counts = [len(prompt.pixel_values) for prompt in prompts]
    if sum(counts) != len(images):
        raise ShapeError(f"{len(images)} images came for prompts that have {sum(counts)}")
    _refuse_banned(policy, completions)
    pixels = policy.pixel_values(images.to(policy.device)).to(policy.dtype)
    features = split_features(policy.family.encode(policy.model, pixels), counts)
    batch = lay_out(policy, [visible(policy, prompt, None) for prompt in prompts], completions)
    logits = completion_logits(policy, batch, [f for row in features for f in row])
    scored = pick_logprobs(policy, logits, batch, 1.0)
    means = [row[: len(tokens)].mean() for row, tokens in zip(scored, completions, strict=True)]
    return torch.stack(means)


def completion_logits(policy: Policy, batch: Rows, features: list[Tensor] | None) -> Tensor:
    """(B, T, V) logits in the model's dtype: entry t is the distribution of completion token t."""
    length = batch.input_ids.shape[1]
    keep = torch.arange(batch.prompt_width - 1, length - 1, device=policy.device)
    output = policy.family.forward(
        policy.model,
        features,
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        logits_to_keep=keep,
        use_cache=False,
    )
    logits: Tensor = output.logits
    return logits


def allowed_logprobs(policy: Policy, logits: Tensor, temperature: float) -> Tensor:
    """(..., V) float32 log-softmax of logits / temperature; banned ids are left out and get -inf."""
    scaled = logits.float() / temperature
    if policy.banned_token_ids:
        banned = torch.tensor(policy.banned_token_ids, device=scaled.device)
        scaled = scaled.index_fill(-1, banned, float("-inf"))
    return scaled.log_softmax(-1)


def pick_logprobs(policy: Policy, logits: Tensor, batch: Rows, temperature: float) -> Tensor:
    """(B, T) float32 log-probs of the rows' completion tokens; entries past a completion's end mean nothing."""
    targets = batch.input_ids[:, batch.prompt_width :, None]
    return allowed_logprobs(policy, logits, temperature).gather(-1, targets)[..., 0]


def _score_chunk(
    policy: Policy, groups: Sequence[PromptGroup], blind: Blind | None, temperature: float
) -> list[list[Tensor]]:
    prompts = [group.prompt for group in groups]
    completions = [tokens for group in groups for tokens in group.completions]
    _refuse_banned(policy, completions)
    features = encode_images(policy, prompts, blind)
    seen = [visible(policy, prompt, blind) for prompt in prompts]
    owners = [index for index, group in enumerate(groups) for _ in group.completions]
    batch = lay_out(policy, [seen[index] for index in owners], completions)
    expanded = None if features is None else [f for index in owners for f in features[index]]
    scored = iter(pick_logprobs(policy, completion_logits(policy, batch, expanded), batch, temperature))
    return [[next(scored)[: len(tokens)] for tokens in group.completions] for group in groups]


def _chunks(groups: Sequence[PromptGroup], rows: int) -> Iterator[list[PromptGroup]]:
    chunk: list[PromptGroup] = []
    size = 0
    for group in groups:
        if chunk and size + len(group.completions) > rows:
            yield chunk
            chunk, size = [], 0
        chunk.append(group)
        size += len(group.completions)
    if chunk:
        yield chunk


def _refuse_banned(policy: Policy, completions: Sequence[Sequence[int]]) -> None:
    banned = set(policy.banned_token_ids)
    for index, tokens in enumerate(completions):
        if not tokens:
            raise DataError(f"completion {index} has no tokens", expected="at least the end-of-sequence token")
        if found := banned.intersection(tokens):
            raise DataError(f"completion {index} holds special image tokens {sorted(found)}")
