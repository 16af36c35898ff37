"""Fresh keys and values, written into the cache by a function of the contract.

Writer and reader are then one claim: what the writer leaves in the cache is what both kernels read.
It is compared with what kvparity itself would have written, slot by slot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kvparity.core import doing
from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.subjects.pair.cache import PairCache
from kvparity.subjects.pair.cache_layouts import laid_out, put_back
from kvparity.subjects.pair.call import bits

_BESIDE = "wrote beside the slots of the cache"
PADDING = -1
"""The slot of a token that is not to be written, as engines pad a captured batch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AppendCall:
    """``k``, ``v`` ``[n, Hkv, width]`` in the execution dtype, and where they go.

    ``slots`` int64 ``[n]``: of ``k_cache``, ``v_cache`` ``[slots, Hkv, width]``, or slot ``s %
    page`` of page ``s // page`` of ``[pages, page, Hkv, width]``; ``PADDING``: of none.
    """

    k: Tensor
    v: Tensor
    k_cache: Tensor
    v_cache: Tensor
    slots: Tensor


@dataclass(frozen=True)
class Appending:
    """The function and the name that the contract gave it."""

    write: Callable[[AppendCall], object]
    name: str

    @classmethod
    def of(cls, function: Callable[..., object], name: str) -> Appending:
        """A function ``append(k, v, k_cache, v_cache, slots=...)``."""
        return cls(
            lambda call: function(
                call.k, call.v, call.k_cache, call.v_cache, slots=call.slots
            ),
            name,
        )  # fmt: skip

    def changed(self, change: Callable[[AppendCall], AppendCall]) -> Appending:
        """The same, called with what ``change`` makes of its calls."""
        return replace(self, write=lambda call: self.write(change(call)))


@dataclass(frozen=True)
class FreshKeys:
    """Keys and values of a sequence from a position on, ``[n, Hkv, width]`` each."""

    sequence: int
    start: int
    k: Tensor
    v: Tensor


def append(
    appending: Appending, cache: PairCache, tokens: Sequence[FreshKeys], *, padding: bool,
    layout: str,
) -> str | None:  # fmt: skip
    """Write the tokens of a step in one call; what is wrong with the cache then, or None.

    ``layout``: of the cache. ``padding``: behind them comes one that goes nowhere. What was written
    stays, right or not.

    Raises:
        SubjectError: the function raised, or changed what it was to write.
    """
    slots = torch.cat([cache.slots(x.sequence, x.start, x.start + len(x.k)) for x in tokens])
    k, v = torch.cat([x.k for x in tokens]), torch.cat([x.v for x in tokens])
    if padding:
        slots = torch.cat([slots, slots.new_tensor([PADDING])])
        k, v = torch.cat([k, k[:1]]), torch.cat([v, v[:1]])
    where, memory = laid_out(held := cache.written(), layout)
    call = AppendCall(k=k, v=v, k_cache=where.k, v_cache=where.v, slots=slots)
    kept = {name: getattr(call, name).clone() for name in ("k", "v", "slots")}
    try:
        with doing.calling(appending.name):
            appending.write(call)
    except (UnsupportedError, KeyboardInterrupt):
        raise
    except BaseException as error:
        hint = " (it is called with k, v, k_cache, v_cache, slots=)"
        raise SubjectError.of(appending.name, error, hint) from error
    for name, before in kept.items():
        if not torch.equal(getattr(call, name), before):
            raise SubjectError(f"{appending.name} wrote to its input {name}")
    clean = put_back(where, memory, held) if memory else True
    for each in tokens:
        cache.expect(each.sequence, each.start, each.k, each.v)
    found = _settled(appending.name, cache, slots)
    return found if clean or found is not None else f"{appending.name} {_BESIDE}"


def _settled(name: str, cache: PairCache, slots: Tensor) -> str | None:
    """What was left otherwise than expected, in words; the twin holds it, too, from now on."""
    if cache.intact():
        return None
    faults = [f"{name} {_BESIDE}"]
    for part, mine, other in (
        ("k", cache.kind.k, cache.twin.k),
        ("v", cache.kind.v, cache.twin.v),
    ):
        off = torch.nonzero((bits(mine.codes) != bits(other.codes)).flatten(1).any(1)).flatten()
        other.memory().copy_(mine.memory())
        for slot in off[:1].tolist():
            given = bool((slots == slot).any())
            what = "left another {} in slot {} than it was given" if given else (
                "changed {} in slot {}, which it was not given"
            )  # fmt: skip
            faults.append(f"{name} {what.format(part, slot)}")
    return faults[-1]
