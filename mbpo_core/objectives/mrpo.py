"""MRPO: two references as one."""

from __future__ import annotations

import torch
from torch import Tensor


def combined_reference(first: Tensor, second: Tensor, *, share: float | Tensor) -> Tensor:
    """Log-prob of the virtual reference that takes the frozen reference's place in DPO.

        log pi~ = log pi_1 + log pi_2 - log( a pi_1 + (1 - a) pi_2 ),   so that   1 / pi~ = a / pi_2 + (1 - a) / pi_1

    This is the released code's reading, in which a is the SECOND reference's share of the harmonic mean (a = 1 gives
    pi_2). The paper's formula, 1 / pi~ = sum_k a_k / pi_k, has it the other way round: pass 1 - a for that.

    Args:
        first, second: (P,) float, log-prob of a completion under either reference, summed, nats.
        share: a in [0, 1], one number or (P,).

    Returns:
        (P,) float, nats, between the two.

    Source: arXiv:2405.16388; thaihungle/MRPO, trainer_mref.py.
    """
    share = torch.as_tensor(share, dtype=first.dtype, device=first.device)
    return first + second - torch.logaddexp(share.log() + first, torch.log1p(-share) + second)


def adaptive_share(gap_first: Tensor, gap_second: Tensor) -> Tensor:
    """A share of each pair's own: how much of the two references' discrimination is the first one's.

        a = |gap_1| / (|gap_1| + |gap_2|),   gap_k = log pi_k(y_w) - log pi_k(y_l)

    It looks at which completion is the chosen one and so leaks the label into the reference (arXiv:2512.10040).

    Args:
        gap_first, gap_second: (P,) float, nats.

    Returns:
        (P,) float in [0, 1]; 1/2 where neither reference tells the two apart (the released code: 0).

    Source: as `combined_reference`.
    """
    first, total = gap_first.abs(), gap_first.abs() + gap_second.abs()
    return torch.where(total > 0, first / total, torch.full_like(total, 0.5))


def clipped_reference(first: Tensor, second: Tensor, *, clip: float | Tensor) -> Tensor:
    """The first reference, kept within a factor of the second's log-prob.

        log pi_2 (1 + clip)  <=  log pi_1  <=  log pi_2 (1 - clip)        (log-probs are negative)

    Args:
        first, second: (P,) float, summed log-probs, nats.
        clip: eta, one number or (P,). The released code splits 0.1 between the two completions of a pair by their
            shares of |log pi_1 + log pi_2|.

    Returns:
        (P,) float, nats.

    Source: as `combined_reference`, clipped trust region.
    """
    return torch.minimum(torch.maximum(first, second * (1 + clip)), second * (1 - clip))
