"""What the bench hands to FlashInfer is what is relied on: the stand-in takes nothing else."""

from __future__ import annotations

import gpu_stand_ins
import pytest
import torch

from kvparity.core.relied import flashinfer as relied
from kvparity.labs.bench import attention
from kvparity.pairs import flashinfer as pairs


@pytest.fixture
def told(monkeypatch):
    """FlashInfer's stand-in on the CPU; gives the methods that it was called by."""
    seen = []
    own = gpu_stand_ins._Wrapper._told

    def note(self, method, *places, **names):
        seen.append((self._name, method))
        own(self, method, *places, **names)

    with gpu_stand_ins.flashinfer():
        import flashinfer

        monkeypatch.setattr(gpu_stand_ins._Wrapper, "_told", note)
        monkeypatch.setattr(pairs, "library", lambda q: flashinfer)
        monkeypatch.setattr(attention, "_flashinfer", lambda q: True)
        monkeypatch.setattr(attention, "_workspace", lambda: torch.zeros(1, dtype=torch.uint8))
        yield seen


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
        relied.Call(c.wrapper, c.method, c.positional, tuple(set(c.named) - {"sm_scale"}))
        for c in relied.CALLS
        if c.method == "plan"
    ]
    monkeypatch.setattr(relied, "CALLS", (*shorter, *plans))
    for _, calls in ways():
        for call in calls.values():
            with pytest.raises(TypeError, match="unexpected keyword argument 'sm_scale'"):
                call()
