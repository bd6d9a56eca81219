"""Log-probabilities of given completions, per token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mbpo_core.errors import DataError, ShapeError
from mbpo_core.models.encoding import encode, encode_images
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.layout import Pack, Rows, lay_out, visible
from mbpo_core.models.packing import GroupPacking
from mbpo_core.models.policy import Policy
from mbpo_core.models.projection import target_logprobs
from mbpo_core.records import Blind

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Mean difference of packed and plain log-probs that is still noise, nats; a wrong mask costs tenths and more."""


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

    z_t are the logits that follow the prompt and y_<t. Softmax in float32. Each distinct image is encoded once,
    and the prompt is read once for all completions that share a row (`policy.packing`).

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
            check_packing(policy, chunk)
            results += _score(policy, chunk, blind, temperature)
    return results


@dataclass(frozen=True)
class ImageScores:
    """What `image_logprobs` finds for B completions.

    Attributes:
        means: (B,) float32 mean log-probs, nats per token; differentiable in the image.
        greedy: whether greedy decoding would give exactly this completion.
    """

    means: Tensor
    greedy: list[bool]


def image_logprobs(
    policy: Policy, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]], images: Sequence[Tensor]
) -> ImageScores:
    """Mean log-probability of one completion a prompt, differentiable in the image.

        m_b = (1 / T_b) sum_t log p(y_bt | images_b, x_b, y_b<t)

    Args:
        policy: frozen; its parameters get no gradient.
        prompts: B prompts; their own pixel values are not used, only how many images each has.
        completions: B lists of token ids, ragged.
        images: each prompt's images as (n, 3, H, W) float in [0, 1] at their native size.

    Returns:
        Rows do not mix: the gradient of sum(means) with respect to images of prompt b is the gradient of m_b.

    Source: recipe 1.4, eq. (2).
    """
    counts = [len(prompt.images) for prompt in prompts]
    if counts != [len(several) for several in images]:
        raise ShapeError(f"{[len(several) for several in images]} images came for prompts that have {counts}")
    refuse_banned(policy, completions)
    inputs = [one for several in images for one in policy.family.image_inputs(several.to(policy.device))]
    features = encode(policy, inputs)
    packs = [Pack(visible(policy, prompt, None), [tokens]) for prompt, tokens in zip(prompts, completions, strict=True)]
    scored, greedy = _pass(policy, lay_out(policy, packs), features, 1.0)
    lengths = [len(tokens) for tokens in completions]
    means = [part.mean() for part in torch.split(scored, lengths)]
    return ImageScores(torch.stack(means), [bool(part.all()) for part in torch.split(greedy.cpu(), lengths)])


def check_packing(policy: Policy, groups: Sequence[PromptGroup]) -> None:
    """Compare packed with plain rows, once a policy, on the first groups that are packed.

    At most two groups of two completions are scored plain, under a block mask, and segment by segment where the model
    can do that. A model that fails goes on with plain rows, with a `PackingWarning`.
    """
    packing = policy.packing
    few = [
        PromptGroup(group.prompt, [group.completions[0], group.completions[-1]])
        for group in groups
        if len(group.completions) > 1
    ][:2]
    if packing.checked or packing.mode == "plain" or not few:
        return
    ways = (False, True) if packing.segmented else (False,)
    with torch.no_grad():
        plain = _flat(_score(policy, few, None, 1.0, "plain"))
        packed = [_flat(_score(policy, few, None, 1.0, "packed", by_segment)) for by_segment in ways]
    gap = max(float((way - plain).abs().mean()) for way in packed)
    packing.checked = True
    if not gap <= _TOLERANCE[policy.dtype]:
        packing.give_up(
            f"packed and plain log-probs of {policy.where} differ by {gap:.2g} nats a token (noise is "
            f"{_TOLERANCE[policy.dtype]:g}); results are right, and slower"
        )


def refuse_banned(policy: Policy, completions: Sequence[Sequence[int]]) -> None:
    """Refuse completions that no model can be asked about.

    Raises:
        DataError: one is empty or holds a special image token.
    """
    banned = set(policy.banned_token_ids)
    for index, tokens in enumerate(completions):
        if not tokens:
            raise DataError(f"completion {index} has no tokens", expected="at least the end-of-sequence token")
        if found := banned.intersection(tokens):
            raise DataError(f"completion {index} holds special image tokens {sorted(found)}")


def _score(
    policy: Policy,
    groups: Sequence[PromptGroup],
    blind: Blind | None,
    temperature: float,
    packing: GroupPacking | None = None,
    by_segment: bool | None = None,
) -> list[list[Tensor]]:
    prompts = [group.prompt for group in groups]
    completions = [tokens for group in groups for tokens in group.completions]
    refuse_banned(policy, completions)
    features = encode_images(policy, prompts, blind)
    packs: list[Pack] = []
    shown: list[Tensor] = []
    for index, group in enumerate(groups):
        seen = visible(policy, group.prompt, blind)
        for row in policy.packs(len(seen.token_ids), [len(c) for c in group.completions], packing):
            packs.append(Pack(seen, [group.completions[k] for k in row]))
            shown += [] if features is None else features[index]
    scored, _ = _pass(policy, lay_out(policy, packs, by_segment), shown, temperature)
    parts = iter(torch.split(scored, [len(tokens) for tokens in completions]))
    return [[next(parts) for _ in group.completions] for group in groups]


def _flat(scores: Sequence[Sequence[Tensor]]) -> Tensor:
    return torch.cat([row for rows in scores for row in rows])


def _pass(policy: Policy, rows: Rows, features: list[Tensor], temperature: float) -> tuple[Tensor, Tensor]:
    """(N,) log-probs of the rows' targets, and whether each is the most probable id."""
    packed = {} if rows.segments is None else {"segments": rows.segments}
    states = policy.family.hidden(
        policy.model,
        features,
        input_ids=rows.input_ids,
        attention_mask=rows.attention_mask,
        position_ids=rows.position_ids,
        **packed,
    )
    picked = states.flatten(0, 1)[rows.predicting]
    return target_logprobs(picked, rows.targets, policy.head, temperature)


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
