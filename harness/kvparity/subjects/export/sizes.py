"""Which sizes of a program are free: what differs between two samples of its inputs."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.export import Dim

from kvparity.core.errors import SubjectError

_MOST = 2**31 - 1

FreeSizes = dict[str, dict[int, Dim]]
"""Per tensor: dimension -> its size."""


class Sizes:
    """The free sizes of one program, as ``torch.export.Dim``.

    Two dimensions of one group that have the same pair of sizes in the samples are one size.
    """

    def __init__(self) -> None:
        self._dims: dict[tuple[str, int, int], Dim] = {}

    def free(
        self,
        group: str,
        first: Mapping[str, Tensor],
        second: Mapping[str, Tensor],
        *,
        most: int = _MOST,
    ) -> FreeSizes:
        """The dimensions in which the samples differ, each size at most ``most``.

        Raises:
            SubjectError: the samples do not hold the same tensors.
        """
        if list(first) != list(second):
            raise SubjectError(f"two samples of one step hold {sorted(first)} and {sorted(second)}")
        found: FreeSizes = {}
        for path, a in first.items():
            b = second[path]
            if a.dim() != b.dim() or a.dtype != b.dtype:
                raise SubjectError(
                    f"two samples of {path} are {a.dtype}{list(a.shape)} and "
                    f"{b.dtype}{list(b.shape)}"
                )
            found[path] = {
                place: self._dim(group, n, m, most)
                for place, (n, m) in enumerate(zip(a.shape, b.shape, strict=True))
                if n != m
            }
        return found

    def _dim(self, group: str, n: int, m: int, most: int) -> Dim:
        key = (group, n, m)
        if key not in self._dims:
            self._dims[key] = Dim(f"{group}_{len(self._dims)}", min=1, max=most)
        return self._dims[key]
