"""What was written, as digests by (stored layer, sequence, position), and whose it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.relations.trace.facts import Facts
from kvparity_kernels.digest import row_digest


@dataclass
class _Written:
    """The newest write at every position of one sequence in one stored layer.

    Fresh keys and values are kept until a reader comes, whose format says what a cast makes of
    them. ``digests`` int64 by position in that format.
    """

    fresh: list[tuple[int, Tensor, Tensor]]
    digests: Tensor
    known: Tensor


class Contents:
    """All that was written in one life of a session."""

    def __init__(self) -> None:
        self._written: dict[tuple[int, int], _Written] = {}

    def layers(self) -> list[int]:
        """The stored layers that anything was written to."""
        return sorted({layer for layer, _ in self._written})

    def write(self, layer: int, sequence: int, start: int, k: Tensor, v: Tensor) -> None:
        """Keep fresh ``k``, ``v`` ``[n, kv_heads, head_dim]`` of the positions from ``start``."""
        own = self._written.setdefault(
            (layer, sequence),
            _Written([], torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)),
        )
        own.fresh.append((start, k.detach().clone(), v.detach().clone()))

    def adopt(self, sequence: int, donor: int, tokens: int) -> None:
        """``sequence`` has taken over the first ``tokens`` tokens of ``donor``."""
        for layer in self.layers():
            source = self._written.get((layer, donor))
            if source is not None:
                fresh = [
                    (start, k[: tokens - start], v[: tokens - start])
                    for start, k, v in source.fresh
                    if start < tokens
                ]
                self._written[layer, sequence] = _Written(
                    fresh, source.digests[:tokens].clone(), source.known[:tokens].clone()
                )

    def matching(
        self, sequence: int, first: int, k: Tensor, v: Tensor, dtype: torch.dtype, facts: Facts
    ) -> dict[int, Tensor]:
        """By stored layer: which of the ``n`` keys and values are those written there, bool [n].

        ``k``, ``v`` ``[n, kv_heads, head_dim]`` as the kernel was given them, from position
        ``first`` on; they are compared in ``dtype``, in which it computes.
        """
        seen = _digests(k, v, dtype)
        found = {}
        for layer in self.layers():
            own = self._written.get((layer, sequence))
            if own is None:
                found[layer] = torch.zeros(len(seen), dtype=torch.bool)
                continue
            _settle(own, layer, k.dtype, dtype, facts)
            stop = first + len(seen)
            there = torch.zeros(len(seen), dtype=torch.bool)
            low = max(first, 0)
            high = max(low, min(stop, len(own.digests)))
            part = slice(low - first, high - first)
            there[part] = own.known[low:high] & (own.digests[low:high] == seen[part])
            found[layer] = there
        return found

    def origin(
        self, layer: int, k: Tensor, v: Tensor, dtype: torch.dtype, facts: Facts
    ) -> tuple[int, int] | None:
        """The sequence and position that one key and value ``[kv_heads, head_dim]`` were written
        for, in a stored layer; None: nowhere, or at several places."""
        seen, found = _digests(k[None], v[None], dtype), []
        for (stored, sequence), own in self._written.items():
            if stored == layer:
                _settle(own, layer, k.dtype, dtype, facts)
                at = torch.nonzero(own.known & (own.digests == seen)).flatten().tolist()
                found += [(sequence, position) for position in at]
        return found[0] if len(found) == 1 else None


def _settle(
    own: _Written, layer: int, given: torch.dtype, dtype: torch.dtype, facts: Facts
) -> None:
    """Digest what was written since a reader last came."""
    for start, k, v in own.fresh:
        if facts.layered is None:
            k, v = k.to(given), v.to(given)
        else:
            k, v = facts.round_trip(layer, k, v)
        stop = start + len(k)
        if stop > len(own.digests):
            grown = stop - len(own.digests)
            own.digests = torch.cat([own.digests, torch.zeros(grown, dtype=torch.int64)])
            own.known = torch.cat([own.known, torch.zeros(grown, dtype=torch.bool)])
        own.digests[start:stop] = _digests(k, v, dtype)
        own.known[start:stop] = True
    own.fresh.clear()


def _digests(k: Tensor, v: Tensor, dtype: torch.dtype) -> Tensor:
    rows = torch.cat([k.flatten(1), v.flatten(1)], dim=1).to(dtype).cpu()
    return row_digest(rows.contiguous())
