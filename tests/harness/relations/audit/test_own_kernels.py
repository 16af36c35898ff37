"""The project's own kernels, on every architecture: structure, golden signatures, verdicts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from audit_cases import ORDER, compared, pair

from kvparity.relations.audit.request import ARCHITECTURES, Request
from kvparity.relations.audit.views import AuditSide

GOLDEN = Path(__file__).parent / "golden"
FAMILY = {"sm_80": "mma.sync", "sm_90": "wgmma", "sm_100": "tcgen05"}
archs = pytest.mark.parametrize("arch", ARCHITECTURES)


@archs
def test_decode_reduces_like_prefill(arch: str, sides: dict[Request, AuditSide]) -> None:
    found = compared(sides, pair(arch))
    assert found.verdict == "same", found.deciding
    assert len(found.fields) == 14


@archs
def test_what_is_seen_on_any_version(arch: str, sides: dict[Request, AuditSide]) -> None:
    prefill, decode = (sides[request] for request in pair(arch))
    assert prefill.merge is None
    assert decode.merge is not None
    for side in (prefill, decode):
        walk = side.walk
        assert walk.families == {FAMILY[arch]}
        assert [each.steps for each in walk.chains] in ([1, 2], [2, 1])  # K: 16 and 32, by 16
        assert sorted(each.start for each in walk.chains) == ["carried", "zero"]
        assert {each.combiner for each in walk.structure.reduces} == {"maxnumf", "addf"}
        assert {each.size for each in walk.structure.reduces} == {ORDER.tile}
        assert walk.num_warps == ORDER.num_warps
        assert walk.loop.kinds()["fma.rn.f32"] == 1
    assert prefill.walk.around
    assert not decode.walk.around
    assert decode.merge.families == set()
    for kernel in (*prefill.kernels, *decode.kernels):
        assert kernel.exp == ("ex2.approx.ftz.f32",)
        assert (kernel.contraction.allowed, kernel.contraction.made, kernel.atomics) == (
            False,
            0,
            0,
        )


@pytest.mark.parametrize("arch", ["sm_90", "sm_100"])
def test_offsets_show_the_order_along_k(arch: str, sides: dict[Request, AuditSide]) -> None:
    for request in pair(arch):
        for chain in sides[request].walk.chains:
            assert chain.b == tuple(sorted(set(chain.b)))
            assert len(chain.b) == chain.steps


@archs
def test_golden(arch: str, sides: dict[Request, AuditSide]) -> None:
    """As recorded for this version of Triton; other versions have the structural tests above."""
    kernels = [kernel for request in pair(arch) for kernel in sides[request].kernels]
    seen: Any = json.loads(json.dumps([each.as_json() for each in kernels]))
    version = ".".join(kernels[0].triton.split(".")[:2])
    path = GOLDEN / f"triton-{version}" / f"{arch}.json"
    if os.environ.get("KVPARITY_WRITE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(seen, indent=1) + "\n")
    if path.is_file():
        assert seen == json.loads(path.read_text())


def test_golden_files_are_of_their_version() -> None:
    files = sorted(GOLDEN.glob("triton-*/*.json"))
    assert {path.stem for path in files} == set(ARCHITECTURES)
    for path in files:
        for kernel in json.loads(path.read_text()):
            assert kernel["triton"].startswith(path.parent.name.removeprefix("triton-") + ".")
            assert kernel["arch"] == path.stem
