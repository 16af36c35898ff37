"""Triton's language under the interpreter: patched for a launch alone, by hooks that are known."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest
import torch

from kvparity_kernels.launch import kernel, launch

# isort: split
import triton
import triton.language as tl
from triton.runtime import interpreter as triton_interpreter
from triton.runtime.errors import InterpreterError

from kvparity_kernels import interpreter, interpreter_fastpath
from kvparity_kernels.relied import GoneError
from kvparity_kernels.relied import triton as triton_relied


@triton.jit
def inner(x):
    return tl.sum(x, 1), tl.max(x, 1)


@kernel
def outer(X, S, M, T, FAIL: tl.constexpr, N: tl.constexpr):
    lane = tl.arange(0, N)
    x = tl.load(X + lane[:, None] * N + lane[None, :])
    for _ in tl.range(0, 3):
        total, top = inner(x)
    tl.store(S + lane, total)
    tl.store(M + lane, top)
    tl.store(T, tl.sum(x))
    if FAIL:
        tl.static_assert(N < 0, "planted")


def run_outer(x: torch.Tensor, fail: bool = False) -> list[torch.Tensor]:
    results = [torch.zeros(16), torch.zeros(16), torch.zeros(1)]
    launch(outer, (2,), x, *results, FAIL=fail, N=16)
    return results


def language() -> dict[Any, Any]:
    things = {"tl": tl, "core": tl.core, "tensor": tl.tensor, "math": tl.math}
    return {(name, k): v for name, thing in things.items() for k, v in vars(thing).items()}


def test_the_language_is_restored_after_every_launch() -> None:
    x = torch.randn(16, 16)
    run_outer(x)
    before = language()
    first = run_outer(x)
    assert language() == before
    with pytest.raises(InterpreterError, match="planted"):
        run_outer(x, fail=True)
    assert language() == before
    again = run_outer(x)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first[1], x.max(1).values)
    assert first[2].item() == pytest.approx(x.double().sum().item(), abs=256 * 2.0**-24 * 256)


def test_nested_calls_do_not_patch_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run_outer(torch.zeros(16, 16))
    patches = triton_interpreter._patch_lang
    assert isinstance(patches, interpreter_fastpath.Patches)
    calls: list[bool] = []
    monkeypatch.setattr(
        interpreter_fastpath.Patches,
        "work_out",
        lambda self: pytest.fail("worked out a second time"),
    )
    monkeypatch.setattr(
        triton_interpreter, "_patch_lang", lambda fn: (calls.append(patches.active), patches(fn))[1]
    )
    run_outer(torch.zeros(16, 16))
    assert calls[0] is False  # the launch
    assert len(calls) > 6
    assert all(calls[1:])  # inside it nothing is left to do


def test_infinities_and_nan_raise_no_warning() -> None:
    x = torch.full((16, 16), float("nan"))
    x[0] = float("inf")
    x[1, 0], x[2] = 1.0, 3e38
    total, top, _ = run_outer(x)  # pytest turns warnings into errors
    assert total[0] == top[0] == float("inf")
    assert total[1].isnan()
    assert top[1] == 1.0  # as on a GPU, a maximum passes over NaN; the sum does not
    assert top[3].isnan()


@pytest.mark.parametrize("hook", triton_relied.HOOKS, ids=lambda hook: hook.names[0])
def test_missing_or_changed_hooks_are_refused(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    triton_relied.check_hooks()  # the control
    *inner, last = hook.names[0].partition(":")[2].split(".")
    place = reduce(getattr, inner, triton_interpreter)
    monkeypatch.setattr(place, last, lambda self, a, b: None)
    with pytest.raises(GoneError, match=rf"{last}`, which .* \(self, a, b\) .*tested with 3\.6 to"):
        triton_relied.check_hooks()
    monkeypatch.delattr(place, last)
    with pytest.raises(GoneError, match=rf"no longer has `.*{last}`, which kvparity uses to put"):
        triton_relied.check_hooks()


def test_installing_twice_changes_nothing() -> None:
    builder = triton_interpreter.InterpreterBuilder
    before = (builder.create_dot, builder.cast_impl, triton_interpreter._patch_lang)
    interpreter.install()
    assert before == (builder.create_dot, builder.cast_impl, triton_interpreter._patch_lang)
