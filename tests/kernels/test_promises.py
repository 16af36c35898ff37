"""What compilers are promised of tensors: checked where it is promised, of each tensor alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kvparity_kernels import launch as launcher
from kvparity_kernels.attention import attend_decode
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.launch import kernel
from kvparity_kernels.order import ReductionOrder

KEYS = 8


@kernel(unaligned=("LENGTHS",))
def nothing(X, Y, LENGTHS):
    pass


class Placed(torch.Tensor):
    """A tensor of a device, at an address that is chosen."""

    device = torch.device("cuda")  # type: ignore[assignment] # an attribute in the place of one
    at = 0

    def data_ptr(self) -> int:
        return self.at


def placed(at: int) -> Tensor:
    found = torch.zeros(4).as_subclass(Placed)
    found.at = at
    return found


@pytest.mark.parametrize("name", ["X", "Y"])
@pytest.mark.parametrize("off", [1, 4, 8])
def test_pointers_are_aligned_where_it_is_promised(
    name: str, off: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "MODE", "compiled")
    given = {"X": placed(16), "Y": placed(32), "LENGTHS": placed(3)}
    assert launcher._check(nothing, (1,), given) == torch.device("cuda")
    with pytest.raises(ValueError, match=f"{name} starts at an address that is not a multiple"):
        launcher._check(nothing, (1,), given | {name: placed(16 + off)})


def seen(q: Tensor, k: Tensor, v: Tensor, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of the launches of one call of decode."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(launcher, "launch", lambda kernel, grid, **named: found.append(named))
    lens = torch.tensor([KEYS], dtype=torch.int32)
    kv = KeysValues(k, v, lens, starts=torch.tensor([0]))
    attend_decode(q, kv, max_kv=KEYS, scale=1.0, order=ReductionOrder())
    return found


@pytest.mark.parametrize("by", [0, 1, 2])
def test_queries_anywhere_are_handed_over_aligned(by: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch.zeros(2 * 16 + 4)
    assert whole.data_ptr() % 16 == 0
    q = whole[by : by + 32].view(1, 2, 16)
    k = torch.zeros(KEYS, 2, 16)
    first, _ = seen(q, k, k.clone(), monkeypatch)
    assert first["Q"].data_ptr() % 16 == 0
    assert (first["Q"] is q) == (by == 0)


@pytest.mark.parametrize("odd", ["k", "v"])
def test_strides_of_keys_and_of_values_are_checked(
    odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, wide = torch.zeros(KEYS, 2, 16), torch.zeros(KEYS, 2, 17)[..., :16]
    given = {"k": good, "v": good.clone()} | {odd: wide}
    with pytest.raises(ValueError, match=rf"strides \(34, 17, 1\) of {odd} must be multiples"):
        seen(torch.zeros(1, 2, 16), given["k"], given["v"], monkeypatch)
