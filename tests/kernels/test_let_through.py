"""Calls of elementwise operations that IEEE 754 does not settle: none is let through as it is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

import kvparity_kernels
from kvparity_kernels.overrides import Invariant, NotInvariantError
from kvparity_kernels.overrides.guard import paused

invariant = kvparity_kernels.invariant
aten = torch.ops.aten
X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))

EVEN: dict[str, tuple[Callable[[], Any], str]] = {
    "a factor": (lambda: torch.add(X, X, alpha=3), "add.Tensor"),
    "a factor of a difference": (lambda: torch.sub(X, X, alpha=0.5), "sub.Tensor"),
    "a factor by its place": (lambda: aten.add.Scalar(X, 2.0, 3), "add.Scalar"),
    "a factor of a difference by its place": (lambda: aten.sub.Scalar(X, 2.0, 3), "sub.Scalar"),
    "a factor turned round": (lambda: aten.rsub.Scalar(X, 2.0, 3), "rsub.Scalar"),
    "a quotient rounded down": (lambda: torch.div(X, X, rounding_mode="floor"), "div.Tensor_mode"),
    "decimals": (lambda: X.round(decimals=1), "round.decimals"),
}


@pytest.mark.parametrize("name", EVEN)
def test_what_is_rounded_twice_is_computed_alike_at_every_place(name: str) -> None:
    call, counted = EVEN[name]
    with invariant() as report:
        call()
    assert report.even == {counted: 1}


SETTLED: dict[str, Callable[[], Any]] = {
    "a sum": lambda: X + X,
    "a difference": lambda: torch.add(X, X, alpha=-1),
    "by place": lambda: aten.add.Scalar(X, 2.0, 1),
    "a quotient": lambda: X / 3,
    "a rounding": lambda: X.round(),
    "whole steps": lambda: torch.arange(0, 6, 2, dtype=torch.float32),
}


@pytest.mark.parametrize("name", SETTLED)
def test_what_is_settled_is_let_through(name: str) -> None:
    with invariant() as report:
        SETTLED[name]()
    assert not report.even
    assert not report.overridden


def test_steps_that_are_not_whole_are_refused() -> None:
    with invariant(), pytest.raises(NotInvariantError, match="arange"):
        torch.arange(0.0, 1.0, 0.1)


def test_other_planted_operations_are_another_setting() -> None:
    planted = {"mm": lambda func, *args: func(*args)}
    with (
        invariant(),
        pytest.raises(RuntimeError, match="leave the outer one"),
        Invariant(planted=planted),
    ):
        pass


def test_a_pause_in_another_thread_is_none_here() -> None:
    entered, done = threading.Event(), threading.Event()

    def pause() -> None:
        with paused():
            entered.set()
            done.wait(10)

    with invariant() as report:
        thread = threading.Thread(target=pause)
        thread.start()
        try:
            assert entered.wait(10)
            X @ X.t()
        finally:
            done.set()
            thread.join()
    assert report.overridden == {"mm": 1}
