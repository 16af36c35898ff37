"""What the bench hands to FlashInfer is what is relied on: the stand-in takes nothing else."""

from __future__ import annotations

import sys
from inspect import Parameter, Signature
from types import ModuleType

import pytest
import torch

from kvparity.core.relied import flashinfer as relied
from kvparity.labs.bench import attention
from kvparity.pairs import flashinfer as pairs


def wrapper(name, seen):
    """A wrapper of FlashInfer that takes the calls that are relied on, and notes them."""

    def method(which):
        def call(self, *places, **names):
            seen.append((name, which))
            relied.declared(name, which).bind(*places, **names)

        own = Parameter("self", Parameter.POSITIONAL_ONLY)
        given = relied.declared(name, which).parameters.values()
        call.__signature__ = Signature([own, *given])
        return call

    methods = {each: method(each) for each in ("__init__", "plan", "run")}
    return type(name, (), {"_backend": "fa2", **methods})


@pytest.fixture
def told(monkeypatch):
    """FlashInfer's stand-in on the CPU; gives the methods that it was called by."""
    seen = []
    module = ModuleType("flashinfer")
    for name in (relied.PREFILL, relied.DECODE):
        setattr(module, name, wrapper(name, seen))
    monkeypatch.setitem(sys.modules, "flashinfer", module)
    monkeypatch.setattr(pairs, "library", lambda q: module)
    monkeypatch.setattr(attention, "_flashinfer", lambda q: True)
    monkeypatch.setattr(attention, "_workspace", lambda: torch.zeros(1, dtype=torch.uint8))
    return seen


def ways():
    """Every way that the bench has through FlashInfer: decode's, then prefill's."""
    k, v = (torch.ones(2, 2 * pairs.PAGE, 1, 8) for _ in "kv")
    yield relied.DECODE, attention._flashinfer_decode(torch.ones(2, 2, 8), k, v, 0.3)
    yield relied.PREFILL, attention._flashinfer_prefill(torch.ones(3, 2, 8), k[0], v[0], 0.3)


def test_every_way_of_the_bench_is_planned_and_run_as_is_relied_on(told):
    for wrapper, calls in ways():
        assert calls
        for call in calls.values():
            told.clear()
            call()
            assert told == [(wrapper, method) for method in ("__init__", "plan", "run")]


def test_a_call_that_is_not_relied_on_is_refused(told, monkeypatch):
    shorter = [c for c in relied.CALLS if c.method != "plan"]
    plans = [
        relied.ReliedCall(c.wrapper, c.method, c.positional, tuple(set(c.named) - {"sm_scale"}))
        for c in relied.CALLS
        if c.method == "plan"
    ]
    monkeypatch.setattr(relied, "CALLS", (*shorter, *plans))
    for _, calls in ways():
        for call in calls.values():
            with pytest.raises(TypeError, match="unexpected keyword argument 'sm_scale'"):
                call()
