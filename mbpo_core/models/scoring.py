"""Log-probabilities of given completions, per token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mbpo_core.errors import DataError, ShapeError
from mbpo_core.models.encoding import encode, encode_images
from mbpo_core.models.groups import Prompt, PromptGroup
from mbpo_core.models.layout import Pack, Rows, lay_out, visible
from mbpo_core.models.packing import GroupPacking
from mbpo_core.models.policy import Policy
from mbpo_core.models.projection import target_logprobs, token_divergences
from mbpo_core.records import Blind

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Mean difference of packed and plain log-probs that is still noise, nats; a wrong mask costs tenths and more."""

_VOCABULARY_ROWS = 256
"""Places whose logits live at once where one number is made of all of them."""


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
    scored = group_scores(policy, groups, blind=blind, temperature=temperature, grad=grad, rows=rows)
    return [[one.logprobs for one in several] for several in scored]


@dataclass(frozen=True)
class TokenScores:
    """What is known of each of a completion's T tokens.

    Attributes:
        logprobs: (T,) float32, nats.
        divergences: (T,) float32, KL(reference || policy) over the whole vocabulary at the token's place, nats; None
            where no reference was given.
    """

    logprobs: Tensor
    divergences: Tensor | None = None


def group_scores(
    policy: Policy,
    groups: Sequence[PromptGroup],
    *,
    blind: Blind | None = None,
    temperature: float = 1.0,
    grad: bool = False,
    rows: int = 64,
    reference: Policy | None = None,
) -> list[list[TokenScores]]:
    """`group_logprobs`, and beside them the divergence from a reference; scores `targets` where a group has them.

    Args:
        reference: of the same family; reads the same rows without gradient.

    Returns:
        [P][K] scores on the policy's device.
    """
    if temperature <= 0:
        raise ShapeError(f"temperature must be > 0 to score, got {temperature}")
    results: list[list[TokenScores]] = []
    with torch.set_grad_enabled(grad):
        for chunk in _chunks(groups, rows):
            check_packing(policy, chunk)
            results += _score(policy, chunk, blind, temperature, reference=reference)
    return results


def group_argmax(policy: Policy, groups: Sequence[PromptGroup], *, rows: int = 64) -> list[list[list[int]]]:
    """The most probable id at the place of every token of every completion, given the prompt and the tokens before.

        a_t = argmax_v log p(v | images, x, y_<t)

    Returns:
        [P][K] lists of T ids; none of them banned.

    Source: POVID arXiv:2402.11411, stage 2: what the model would have said under these images.
    """
    picked = over_vocabulary(policy, groups, lambda logits: logits.argmax(-1), rows=rows)
    return [[tokens.tolist() for tokens in several] for several in picked]


def over_vocabulary(
    policy: Policy, groups: Sequence[PromptGroup], what: Callable[[Tensor], Tensor], *, rows: int = 64
) -> list[list[Tensor]]:
    """A number made of all logits at the place of every token of every completion, without gradient.

    Args:
        what: (N, V) float32 logits, -inf where an id is banned, to (N,).

    Returns:
        [P][K] tensors (T,) on the CPU.
    """
    results: list[list[Tensor]] = []
    with torch.no_grad():
        for chunk in _chunks(groups, rows):
            check_packing(policy, chunk)
            states = _states(policy, *_laid_out(policy, chunk, None))
            few = torch.split(states, _VOCABULARY_ROWS)
            found = torch.cat([what(policy.head.logits(part, 1.0)) for part in few]).cpu()
            parts = iter(torch.split(found, [len(c) for group in chunk for c in group.completions]))
            results += [[next(parts) for _ in group.completions] for group in chunk]
    return results


@dataclass(frozen=True)
class ImageScores:
    """What `image_logprobs` finds for B completions.

    Attributes:
        means: (B,) float32 mean log-probs, nats per token; differentiable in the image.
        greedy: whether greedy decoding would give exactly this completion.
        tokens: B of (T_b,) float32, the log-probs that the means are of, in nats; differentiable in the image.
    """

    means: Tensor
    greedy: list[bool]
    tokens: Sequence[Tensor]


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
    tokens = torch.split(scored, lengths)
    means = torch.stack([part.mean() for part in tokens])
    return ImageScores(means, [bool(part.all()) for part in torch.split(greedy.cpu(), lengths)], tokens)


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
    reference: Policy | None = None,
) -> list[list[TokenScores]]:
    rows, shown = _laid_out(policy, groups, blind, packing, by_segment)
    states = _states(policy, rows, shown)
    lengths = [len(tokens) for group in groups for tokens in group.completions]
    logprobs = iter(torch.split(target_logprobs(states, rows.targets, policy.head, temperature)[0], lengths))
    if reference is None:
        return [[TokenScores(next(logprobs)) for _ in group.completions] for group in groups]
    with torch.no_grad():
        frozen = _states(reference, rows, _shown(reference, groups, blind, policy.packs, packing)[1])
    divergences = iter(
        torch.split(token_divergences(states, policy.head, frozen, reference.head, temperature), lengths)
    )
    return [[TokenScores(next(logprobs), next(divergences)) for _ in group.completions] for group in groups]


def _laid_out(
    policy: Policy,
    groups: Sequence[PromptGroup],
    blind: Blind | None,
    packing: GroupPacking | None = None,
    by_segment: bool | None = None,
) -> tuple[Rows, list[Tensor]]:
    """Rows of the groups, and the image features that fill them."""
    completions = [tokens for group in groups for tokens in group.completions]
    refuse_banned(policy, completions)
    refuse_banned(policy, [tokens for group in groups for tokens in group.targets or []])
    packs, shown = _shown(policy, groups, blind, policy.packs, packing)
    return lay_out(policy, packs, by_segment), shown


def _shown(
    policy: Policy,
    groups: Sequence[PromptGroup],
    blind: Blind | None,
    split: Callable[[int, Sequence[int], GroupPacking | None], list[list[int]]],
    packing: GroupPacking | None,
) -> tuple[list[Pack], list[Tensor]]:
    features = encode_images(policy, [group.prompt for group in groups], blind)
    packs: list[Pack] = []
    shown: list[Tensor] = []
    for index, group in enumerate(groups):
        seen, scored = visible(policy, group.prompt, blind), group.targets or group.completions
        for row in split(len(seen.token_ids), [len(c) for c in group.completions], packing):
            packs.append(Pack(seen, [group.completions[k] for k in row], [scored[k] for k in row]))
            shown += [] if features is None else features[index]
    return packs, shown


def _flat(scores: Sequence[Sequence[TokenScores]]) -> Tensor:
    return torch.cat([row.logprobs for rows in scores for row in rows])


def _pass(policy: Policy, rows: Rows, features: list[Tensor], temperature: float) -> tuple[Tensor, Tensor]:
    """(N,) log-probs of the rows' targets, and whether each is the most probable id."""
    return target_logprobs(_states(policy, rows, features), rows.targets, policy.head, temperature)


def _states(policy: Policy, rows: Rows, features: list[Tensor]) -> Tensor:
    """(N, D) the hidden states that predict the rows' targets."""
    packed: dict[str, Any] = {} if rows.segments is None else {"segments": rows.segments}
    states = policy.family.hidden(
        policy.model,
        features,
        input_ids=rows.input_ids,
        attention_mask=rows.attention_mask,
        position_ids=rows.position_ids,
        **packed,
    )
    return states.flatten(0, 1)[rows.predicting]


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
