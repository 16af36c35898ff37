"""What the inspection of exported programs finds, and what it lets pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_programs import decoder, prompts
from torch import Tensor

from kvparity.controls.table import PLANTS
from kvparity.plan.schedule import Layout, Member
from kvparity.subjects.base import SubjectError
from kvparity.subjects.export.decoder import open_session
from kvparity.subjects.export.inspection import baked, require_clean
from kvparity.subjects.export.leaves import tensors
from kvparity.subjects.export.programs import trace, trace_planted
from kvparity_contracts.controls.programs import PROGRAMS


class Reads(torch.nn.Module):
    """Attends to a cache with one weight; a defect overrides ``seen``."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(4, 4), requires_grad=False)
        self.held = torch.randn(6, 4)
        self.register_buffer("table", torch.randn(8, 4))

    def seen(self, cache: Tensor, length: Any) -> Tensor:
        return cache

    def forward(self, x: Tensor, cache: Tensor, slot: Tensor, length: Any) -> Tensor:
        cache.index_copy_(0, slot, x @ self.weight)
        seen = self.seen(cache, length)
        hidden = torch.arange(len(seen)) >= length
        scores = (x @ seen.T + self.table[slot].sum()).masked_fill(hidden, -torch.inf)
        return torch.softmax(scores, dim=-1) @ seen


class Baked(Reads):
    def seen(self, cache: Tensor, length: Any) -> Tensor:
        return self.held


class Copied(Reads):
    """Reads a view of a copy: not what was written."""

    def seen(self, cache: Tensor, length: Any) -> Tensor:
        return (cache * 0 + 1).view(6, 4)


class Number(Reads):
    def forward(self, x: Tensor, cache: Tensor, slot: Tensor, length: Any) -> Tensor:
        return super().forward(x, cache, slot, 3)


def found(module: Reads, length: Any = None) -> list[tuple[str, str]]:
    inputs = (
        torch.randn(1, 4),
        torch.randn(6, 4),
        torch.tensor([2]),
        torch.tensor(3) if length is None else length,
    )
    program = torch.export.export(module, inputs, strict=False)
    return [(f.node, f.what) for f in baked(program, [module.weight, module.table])]


def test_an_honest_program_gives_nothing() -> None:
    assert found(Reads()) == []


def test_a_constant_cache_is_found_by_name_and_shape() -> None:
    findings = found(Baked())
    assert any(
        "holds float32[6, 4], which is none of the model's weights" in f for _, f in findings
    )
    assert ("cache", findings[-1][1]) == findings[-1]
    assert "no result depends on" in findings[-1][1]


def test_a_cache_that_is_written_and_not_read_is_no_use() -> None:
    assert found(Copied()) == []  # it depends on the cache, if only formally: liveness tells

    class Unread(Reads):
        def seen(self, cache: Tensor, length: Any) -> Tensor:
            return torch.ones(6, 4)

    assert [node for node, _ in found(Unread())] == ["cache"]


def test_a_fixed_length_is_found() -> None:
    assert [node for node, _ in found(Number())] == ["length"]
    ((node, what),) = found(Reads(), length=4)
    assert (node, what) == ("length", "is an input that tracing fixed to 4")


def test_a_weight_is_known_by_memory_or_content_and_nothing_else_is() -> None:
    module = Reads()
    inputs = (torch.randn(1, 4), torch.randn(6, 4), torch.tensor([2]), torch.tensor(3))
    program = torch.export.export(module, inputs, strict=False)
    assert baked(program, [module.weight.clone(), module.table.clone()]) == []
    off = module.table.clone()
    off[0, 0] += 1
    ((node, what),) = [(f.node, f.what) for f in baked(program, [module.weight, off])]
    assert (node, what) == ("b_table", "holds float32[8, 4], which is none of the model's weights")
    # Content that the caller feeds is no finding.
    assert baked(program, [module.weight], fed=["table"]) == []


def test_findings_are_an_error_that_names_the_first() -> None:
    program = torch.export.export(
        Baked(),
        (torch.randn(1, 4), torch.randn(6, 4), torch.tensor([2]), torch.tensor(3)),
        strict=False,
    )
    with pytest.raises(SubjectError, match=r"traced step is not a function of its inputs: .*more"):
        require_clean(baked(program, []), "step")


# What is found of each constant: (what the program holds, the inputs that it does not use).
PLANTED = {
    "cache": ("float32", ["cache_k_0_codes", "cache_v_0_codes"]),
    "positions": ("int64[1]", ["batch_positions"]),
    "decode.seen.kv_lens": ("int32[1]", ["batch_decode_seen_kv_lens"]),
}


@pytest.mark.parametrize("constant", PLANTED)
def test_every_planted_constant_of_a_decoder_is_found(constant: str) -> None:
    model = decoder("plain").model
    session = open_session(decoder("plain"), [Member("a", 9, 4)], Layout(program="exported"))
    samples = session._samples(decode=True)
    weights = [*tensors(model.weights).values(), model.cos, model.sin]
    assert baked(trace(model, samples), weights) == []
    findings = baked(trace_planted(model, samples[0], frozenset([constant])), weights)
    held, unused = PLANTED[constant]
    assert any(f.what.startswith(f"holds {held}") for f in findings)
    assert [f.node for f in findings if "no result depends" in f.what] == unused
    with pytest.raises(
        SubjectError, match=r"decoder step is not a function of its inputs: .*holds"
    ):
        require_clean(findings, "decoder step")


@pytest.mark.parametrize("name", [row.name for row in PROGRAMS])
def test_every_control_changes_bits_from_its_second_token_on(name: str) -> None:
    from small_programs import computed

    which, one = decoder("plain"), prompts(5)
    clean = computed(which, "prefill", one)
    planted = computed(PLANTS[name](which), "exported", one)
    same = [bool(x) for x in clean.digests == planted.digests]
    assert same == [True, True, False, False]
