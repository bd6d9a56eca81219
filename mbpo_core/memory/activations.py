"""What a pass through the model leaves behind for its backward pass, and what it works with.

The accounting of Korthikanti et al. (arXiv:2205.05198, section 4), tensor by tensor, for what these models do: no
dropout, torch's scaled dot-product attention (its scores are never kept; they keep `sbhL` there), RMSNorm in float32,
SwiGLU, grouped queries, and rows of [prompt][completion 1]...[completion K]. Letters: w bytes a number of the model's
dtype (2 or 4), h width, f inner width, a heads, k key heads, d head width, L tokens.

Assumed: every attention kernel is a fused one (with a mask, the memory-efficient one). What tensors share is counted
once. Projectors and patch embeddings are left out, being less than a layer, and so is what experts are chosen with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mbpo_core.memory.architecture import Architecture, Tower

_FLOAT = 4


@dataclass(frozen=True)
class Batch:
    """What goes through the model together.

    Attributes:
        rows: tokens of the prompt and of each completion, a row.
        by_segment: rows attend segment by segment, without a mask.
        scored: places whose tokens get a log-prob.
        patches: of all pictures, in the vision tower; 0 where none is seen.
    """

    rows: Sequence[tuple[int, ...]]
    by_segment: bool = False
    scored: int = 0
    patches: int = 0

    @property
    def tokens(self) -> int:
        """L, padding included."""
        return len(self.rows) * max(map(sum, self.rows))

    @property
    def packed(self) -> bool:
        """Whether some row holds several completions, so that its tokens do not all see one another."""
        return any(len(row) > 2 for row in self.rows)

    @property
    def masked(self) -> bool:
        """Whether there is a (B, 1, L, L) mask."""
        return self.packed and not self.by_segment


@dataclass(frozen=True)
class Learns:
    """What of a tower's weights learns: its norms, and its projections (with adapters, beside frozen weights)."""

    norms: bool = True
    projections: bool = True


NOTHING, ALL, ADAPTERS = Learns(False, False), Learns(), Learns(norms=False)


def saved_by_layer(tower: Tower, tokens: int, width: int, learns: Learns, batch: Batch | None = None) -> float:
    """Bytes that one layer keeps for its backward pass.

        norms       RMSNorm: 2 L (h (4 + [w + w]) + 4), its input and its scale in float32, [normalised, and as the
                    projections' input].  LayerNorm: 2 L (h (w + [w]) + 8), its input, mean and scale, [its output]
        attention   L (w (a d + 2 k' d + a d) + 4 a), queries, keys, values, output, and the softmax's normaliser;
                    k' = a where keys are repeated for a mask
        MLP         w L f (n + [1]), n of `Tower.kept`, [the last projection's input]

    Terms in [] are kept only where the weights they are multiplied with learn: an attack on the image keeps none, and
    adapters keep the inputs of projections only.
    A fused projection of queries, keys and values is kept whole by the values, which are a part of it: 3 h for k' d;
    such towers attend picture by picture, and put the outputs together in another tensor [w L a d].
    Segment by segment, each completion reads a copy of its prompt's keys and values beside its own
    (`models.attention`): 2 w a d (sum_rows L + sum_k (P + C_k)) in place of 2 w L k' d, and another output.

    Args:
        tower: whose layer.
        tokens: L.
        width: w.
        learns: of its weights.
        batch: of the language model; None for pictures.
    """
    heads, keys = tower.heads * tower.head_width, tower.key_heads * tower.head_width
    saved = 2.0 * _saved_by_norm(tower, width, learns) + 2 * width * heads + _FLOAT * tower.heads
    if tower.head_norms:
        saved += (heads + keys) * (_FLOAT + width * learns.norms) + _FLOAT * (tower.heads + tower.key_heads)
    if batch is not None and batch.packed:
        keys = heads
    saved += width * (keys + (3 * tower.width + learns.projections * heads if tower.fused else keys))
    saved += width * tower.inner * (tower.kept + learns.projections)
    if batch is None or not (batch.packed and batch.by_segment):
        return saved * tokens
    copies = sum(row[0] + completion for row in batch.rows if len(row) > 2 for completion in row[1:])
    return saved * tokens + width * heads * (2 * copies + learns.projections * tokens)


def saved_after_layers(tower: Tower, tokens: int, width: int, learns: Learns) -> float:
    """Bytes that the norm behind the last layer and the rotary tables keep: a norm's, and 2 w L d."""
    norm = _saved_by_norm(tower, width, Learns(learns.norms, projections=False))
    return tokens * (norm + 2.0 * width * tower.head_width)


def _saved_by_norm(tower: Tower, width: int, learns: Learns) -> int:
    """Bytes a token, with the input of the projections behind it."""
    if tower.rms:
        return tower.width * (_FLOAT + width * (learns.norms + learns.projections)) + _FLOAT
    return tower.width * width * (1 + learns.projections) + 2 * _FLOAT


def working_by_layer(tower: Tower, tokens: int, width: int) -> float:
    """Bytes that one layer works with and drops: w L (3 h + 3 f), or attention's w L (3 h + 4 a d), the larger.

    Forward, these are the residual stream, a norm's input and output, and what the MLP (or attention) makes of them;
    backward, their gradients.
    """
    inner = tower.inner * max(2, tower.kept)
    return float(width * tokens * (3 * tower.width + max(inner, 4 * tower.heads * tower.head_width)))


def scores_by_layer(tower: Tower, batch: Batch, width: int) -> float:
    """Bytes of the softmax that `attention: eager` keeps: a sum_rows L^2 (4 + w), once where w is 4."""
    length = batch.tokens // len(batch.rows)
    return float(tower.heads * len(batch.rows) * length**2 * (_FLOAT if width == _FLOAT else _FLOAT + width))


def mask(batch: Batch, width: int) -> float:
    """Bytes of the additive mask of packed rows and of two bools a place while it is made: B L^2 (w + 2)."""
    length = batch.tokens // len(batch.rows)
    return float(len(batch.rows) * length**2 * (width + 2)) if batch.masked else 0.0


def logits(model: Architecture, scored: int, width: int, limit_mib: float, *, grad: bool, trained: bool) -> float:
    """Bytes of projecting N places to V ids.

    A (N, V) float32 tensor up to the limit is made whole: forward it and a copy without the banned ids, 2 * 4 N V; of
    the copy and the gradient's parts 4 * 4 N V are alive backward. A larger one is made in chunks of at most the
    limit, two of them alive at a time (`models.projection`). Beside that, backward: 4 N h for the hidden states'
    gradient, and w V h for the head's own where it learns.
    """
    whole = 4.0 * scored * model.vocabulary
    limit = limit_mib * 2**20
    tensors = 2 * limit if whole > limit else (4 if grad else 2) * whole
    if not grad:
        return tensors
    return tensors + 4.0 * scored * model.language.width + trained * width * model.head
