"""What a kernel of a pair is given beside its queries: of a cache, and terms of its scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class StoredKV:
    """What a pair is given of a cache: k and v and, where they are codes, their scales."""

    k: Tensor
    v: Tensor
    k_scale: Tensor | None = None
    v_scale: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """All of it that there is, by the names that a call has."""
        return {name: each for name, each in vars(self).items() if each is not None}

    def each(self, change: Callable[[Tensor], Tensor]) -> StoredKV:
        """The same with k, v and the scales that lie beside their tokens changed."""

        def beside(scale: Tensor | None) -> Tensor | None:
            return scale if scale is None or scale.dim() == 1 else change(scale)

        return StoredKV(change(self.k), change(self.v), beside(self.k_scale), beside(self.v_scale))


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadTerms:
    """What the scores of each query head take beside q and k, float32; None: not declared.

    ``sinks`` ``[Hq]``: logits of one more key whose value is 0. The others are added to scores
    after scale and softcap, by the distance of a key from the row's own. ``alibi_slopes`` ``[Hq]``:
    ``- slope * distance``. ``bias`` ``[Hq, distances]``: its last column is of all farther keys.
    """

    sinks: Tensor | None = None
    alibi_slopes: Tensor | None = None
    bias: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Those that there are, by keyword."""
        return {name: each for name, each in vars(self).items() if each is not None}
