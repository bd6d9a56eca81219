"""Key regions by the policy's own gradient: where the image would have to change for a keyword to change.

Tried by a script that is not kept,
on 300 scenes of two and more objects of the demo's pools that are asked for one object's colour ("The
banana is green."), on demo:absolute and demo:soft, with one gradient for all keywords: pointing (the best patch's
middle lies in the object's square, which takes 19 % of the picture), and IoU of the best 15 % of patches with it.

    pixel gradient                                     .91-.94    .37-.41
    the same, smoothed over neighbouring patches       .90-.94    .48-.51
    gradient x (pixel - mean colour)                   .88-.92    .40-.43
    the same, smoothed                                 .88-.92    .47-.50
    SmoothGrad, 4 noisy copies of deviation 0.2        .91-.98    .42-.46    (200 scenes)
    gradient by the projected image features           .82-.92    .37-.43    (200 scenes)

Logits, or their lead over the second best, in place of log-probs, and all tokens in place of the keywords': within .04.
A gradient for each keyword and the union of their regions, which is what stands below: .92-.99 and .49-.53, measured by
`python -m benchmarks.regions`. It is worth its passes in descriptions: at equal area the regions of one gradient for
all keywords meet .67 of the objects, the union meets .98.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, pad

from mbpo_core.models.policy import Policy
from mbpo_core.models.scoring import image_logprobs
from mbpo_core.negatives.ball import LEVELS
from mbpo_core.negatives.batching import by_length
from mbpo_core.negatives.bench import Bench
from mbpo_core.negatives.regions import Found, Sought
from mbpo_core.negatives.tasks import Task


def by_saliency(bench: Bench, several: Sequence[Sought]) -> list[Found | None]:
    """The patches whose pixels each keyword's likelihood hangs on most, the union over keywords.

        g_k = | d (1/|k|) sum_{t in k} log p(y_t | m, x, y_<t) / d m |,    averaged over the pixels of a patch
        R_k = the `region_share` of patches with the largest g_k, smoothed over neighbours;    M = union of R_k

    An answer without keywords stands as a whole, EOS left out. Nothing is found where all gradients are zero. The
    point is the centre of the patch with the largest sum_k g_k / |g_k|_1.

    Cost: a forward pass, and a backward pass a keyword, over `batch_size` samples at once.

    Source: recipe 2.4, by pixels rather than by patch embeddings, so that it is the same for every family.
    """
    maps = by_length(
        several,
        lambda sought: len(sought.task.prompt.token_ids) + len(sought.task.chosen),
        bench.settings.batch_size,
        lambda few: salience(bench.policy, [s.task for s in few], [s.tokens or [_whole(s.task)] for s in few]),
    )
    share = bench.settings.region_share
    return [_found(sought.task, one, share) for sought, one in zip(several, maps, strict=True)]


def salience(policy: Policy, tasks: Sequence[Task], tokens: Sequence[Sequence[Sequence[int]]]) -> list[Tensor]:
    """How much each group of a response's tokens hangs on each patch of its images.

    Args:
        policy: frozen.
        tasks: B samples.
        tokens: for each, K_b groups of places in its chosen response.

    Returns:
        B of (K_b, n, h, w) float32 >= 0 on the CPU; h and w count patches of `patch_side`.
    """
    with torch.enable_grad():
        pixels = [(task.images.to(policy.device) / LEVELS).requires_grad_() for task in tasks]
        prompts, chosen = [task.prompt for task in tasks], [task.chosen for task in tasks]
        scores = image_logprobs(policy, prompts, chosen, pixels).tokens
        maps: list[list[Tensor]] = [[] for _ in tasks]
        most = max(map(len, tokens))
        for k in range(most):
            asked = [place for place, groups in enumerate(tokens) if k < len(groups)]
            total = torch.stack([scores[place][list(tokens[place][k])].mean() for place in asked]).sum()
            gradients = torch.autograd.grad(total, [pixels[place] for place in asked], retain_graph=k < most - 1)
            for place, gradient in zip(asked, gradients, strict=True):
                maps[place].append(_smooth(_pool(gradient, patch_side(tasks[place]))).cpu())
    return [torch.stack(several) for several in maps]


def patch_side(task: Task) -> int:
    """Pixels of the side of the square that one image position of the prompt stands for, on average."""
    images, _, height, width = task.images.shape
    features = sum(image.features for image in task.prompt.images)
    return max(1, round(math.sqrt(images * height * width / features)))


def _pool(gradient: Tensor, side: int) -> Tensor:
    """(n, 3, H, W) -> (n, h, w): mean size in each patch; those at the far edges may be smaller."""
    return avg_pool2d(gradient.abs().mean(1), side, ceil_mode=True)


def _smooth(maps: Tensor) -> Tensor:
    """(n, h, w), every patch averaged with its neighbours by weights 1 2 1; the edge is repeated."""
    line = torch.tensor([0.25, 0.5, 0.25]).to(maps)
    return conv2d(pad(maps[:, None], (1, 1, 1, 1), mode="replicate"), torch.outer(line, line)[None, None])[:, 0]


def _found(task: Task, maps: Tensor, share: float) -> Found | None:
    totals = maps.flatten(1).sum(1)
    if not (totals > 0).any():
        return None
    kept = maps[totals > 0].flatten(1)
    best = torch.zeros(kept.shape[1], dtype=torch.bool)
    best[kept.topk(max(1, round(share * kept.shape[1]))).indices.flatten()] = True
    images, height, width = maps.shape[1:]
    side = patch_side(task)
    masks = best.view(images, height, width).repeat_interleave(side, 1).repeat_interleave(side, 2)
    peak = int((kept / kept.sum(1, keepdim=True)).sum(0).argmax())
    image, y, x = peak // (height * width), peak // width % height, peak % width
    _, _, rows, columns = task.images.shape
    point = (image, min(y * side + side // 2, rows - 1), min(x * side + side // 2, columns - 1))
    return Found(masks[:, :rows, :columns].contiguous(), point, {"patch": side})


def _whole(task: Task) -> list[int]:
    """All tokens of the chosen response but EOS."""
    return list(range(max(len(task.chosen) - 1, 1)))
