"""Functions that a comparison rests on are watched, and bound before a subject is imported."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable

import pytest
import torch
from torch.overrides import TorchFunctionMode

from kvparity.core import bits, replaced, sight
from kvparity.core.environment import settle, unsettled


def test_what_replaces_a_function_is_seen_and_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    known = replaced.functions()
    assert replaced.watching(known)() is None
    plain = torch.Tensor.__ne__
    for owner, name in ((torch, "ne"), (torch.Tensor, "__ne__"), (json, "loads"), (bits, "ulps")):
        wrapped = functools.wraps(getattr(owner, name))(lambda *_: None)  # has the same name
        monkeypatch.setattr(owner, name, wrapped)
        assert f"{name} is no longer the function that it was" in str(replaced.watching(known)())
        replaced.put_back(known)
        assert replaced.watching(known)() is None
    assert torch.Tensor.__ne__ is plain


def code(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(bits.ulps, "__code__", (lambda *_: None).__code__)


REPLACED: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "own": (lambda patch: patch.setattr(bits, "ulps", lambda *_: None), "bits.ulps"),
    "gone": (lambda patch: patch.delattr(bits, "ulps"), "bits.ulps"),
    "code": (code, "bits.ulps"),
    "inherited": (
        lambda patch: patch.setattr(torch.nn.Parameter, "view", lambda *_: None, raising=False),
        "Parameter.view",
    ),
    "inherited by tensors": (
        lambda patch: patch.setattr(torch.Tensor, "view", lambda *_: None),
        "Tensor.view",
    ),
    "no method": (lambda patch: patch.setattr(torch.Tensor, "__bool__", None), "__bool__"),
    "a module": (
        lambda patch: patch.setitem(sys.modules, "kvparity.core.bits", sight),
        "sys.modules.kvparity.core.bits",
    ),
}


@pytest.mark.parametrize(("replace", "named"), REPLACED.values(), ids=REPLACED)
def test_every_kind_of_place_is_looked_at(
    replace: Callable[[pytest.MonkeyPatch], None], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = replaced.watching(replaced.functions())
    assert look() is None
    with monkeypatch.context() as patch:
        replace(patch)
        found = str(look())
    assert found.endswith("is no longer the function that it was")
    assert named in found
    assert look() is None


def test_a_class_that_is_put_between_parameters_and_tensors_is_seen() -> None:
    class Between(torch.Tensor):
        def view(self, *_: object) -> torch.Tensor:  # type: ignore[override]
            return self

    look, bases = replaced.watching(replaced.functions()), torch.nn.Parameter.__bases__
    torch.nn.Parameter.__bases__ = (Between,)
    try:
        found = look()
    finally:
        torch.nn.Parameter.__bases__ = bases
    assert str(found).endswith("Parameter.view is no longer the function that it was")
    assert look() is None


def test_functions_are_listed_anew_where_one_is_another_or_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = replaced.watched()
    assert replaced.watched() is before
    monkeypatch.setattr(bits, "ulps", lambda *_: None)
    patched = replaced.watched()
    assert patched.look() is None
    monkeypatch.setattr(bits, "more", lambda: None, raising=False)
    more = replaced.watched()
    assert more.look() is None
    monkeypatch.setattr(bits, "more", lambda: 1)
    assert "bits.more is no longer" in str(more.look())
    monkeypatch.undo()
    assert "bits.ulps is no longer" in str(patched.look())
    assert replaced.watched().look() is None


def test_a_comparison_that_is_blind_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Agreeing(TorchFunctionMode):
        """What was entered and not left: every difference is none."""

        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            found = func(*args, **(kwargs or {}))
            return torch.zeros_like(found) if func is torch.ne else found

    settle()
    assert sight.blind() is None
    assert unsettled() is None
    with Agreeing():
        assert sight.blind() == "the comparison no longer sees a known difference"
        assert unsettled() == sight.blind()
    monkeypatch.setattr(sight, "row_digest", lambda rows, twin: torch.arange(2))
    assert sight.blind() == "the comparison no longer sees a known difference"
    monkeypatch.setattr(sight, "row_digest", lambda rows, twin: torch.rand(2))
    assert sight.blind() == "the comparison sees a difference between equal numbers"
    monkeypatch.setattr(sight, "differing", lambda a, b: 1 // 0)
    assert "raises ZeroDivisionError" in str(sight.blind())


def test_what_torch_wraps_of_its_own_is_no_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    known = replaced.functions()
    monkeypatch.setattr(torch, "manual_seed", torch._disable_dynamo(torch.manual_seed))
    assert replaced.watching(known)() is None


def agreeing(*_: object) -> bool:
    return True


def of_itself() -> object:
    found = torch.no_grad()(agreeing)
    return functools.update_wrapper(found, found)


WRAPPED: dict[str, Callable[[], object]] = {
    "no gradients": lambda: torch.no_grad()(agreeing),
    "said to be the one that it was": lambda: torch.no_grad()(
        functools.wraps(torch.equal)(lambda *_: True)
    ),
    "left out by dynamo": lambda: torch._disable_dynamo(agreeing),
    "vmap": lambda: torch.vmap(agreeing),
    "itself": of_itself,
    "another function of torch": lambda: torch.is_tensor,
}


@pytest.mark.parametrize("name", WRAPPED)
def test_what_torch_wraps_of_others_is_a_replacement(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it came: before torch wrapped a function of its own, at once with it, after it."""
    known = replaced.functions()
    look, wrapped = replaced.watching(known), torch._disable_dynamo(torch.manual_seed)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "equal", WRAPPED[name]())
        assert "torch.equal is no longer" in str(look())
        patch.setattr(torch, "manual_seed", wrapped)
        assert "torch.equal is no longer" in str(look())
    monkeypatch.setattr(torch, "manual_seed", wrapped)
    assert look() is None
    monkeypatch.setattr(torch, "equal", WRAPPED[name]())
    assert "torch.equal is no longer" in str(look())


def test_what_lies_under_a_wrapper_of_torch_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    look, plain = replaced.watching(replaced.functions()), bits.ulps
    monkeypatch.setattr(bits, "ulps", torch._disable_dynamo(plain))
    assert look() is None
    with monkeypatch.context() as patch:
        patch.setattr(plain, "__code__", (lambda *_: None).__code__)
        assert "bits.ulps is no longer" in str(look())
    assert look() is None


def test_what_torch_wrapped_is_looked_at_in_one_go_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []
    under = replaced._under_torch
    one = another = None

    def of_two(*_: object) -> object:  # of as many variables outside as the wrapper of torch
        return one or another

    def told(function: object, value: object) -> object:
        asked.append(function)
        return under(function, value)

    monkeypatch.setattr(replaced, "_under_torch", told)
    look, plain = replaced.watching(replaced.functions()), torch.manual_seed
    wrapped = torch._disable_dynamo(plain)
    monkeypatch.setattr(torch, "manual_seed", wrapped)
    assert [look(), look()] == [None, None]
    assert asked == [wrapped]
    monkeypatch.setattr(torch, "manual_seed", lambda _: None)
    assert "torch.manual_seed is no longer" in str(look())
    monkeypatch.setattr(torch, "manual_seed", wrapped)
    with monkeypatch.context() as patch:
        assert len(wrapped.__code__.co_freevars) == len(of_two.__code__.co_freevars)
        patch.setattr(wrapped, "__code__", of_two.__code__)
        assert "torch.manual_seed is no longer" in str(look())
    monkeypatch.setattr(torch, "manual_seed", plain)
    assert look() is None
    monkeypatch.setattr(torch, "manual_seed", lambda _: None)
    assert "torch.manual_seed is no longer" in str(look())


def test_bits_are_compared_by_what_was_there_first(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])
    with monkeypatch.context() as patch:
        patch.setattr(torch, "ne", lambda *_: torch.zeros(2, dtype=torch.bool))
        patch.setattr(torch.Tensor, "__ne__", torch.ne)
        patch.setattr(torch.Tensor, "view", lambda x, *_: torch.zeros(2, dtype=torch.int32))
        found = bits.differing(a, b)
    assert found.tolist() == [False, True]
