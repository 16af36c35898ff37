"""The audit compiles what would be launched: with the tiles in force for an architecture."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from kvparity.relations.audit.compare import KernelComparison
from kvparity.relations.audit.compile import _key
from kvparity.relations.audit.contract import Result
from kvparity.relations.audit.report import pair_lines
from kvparity.relations.audit.request import Request, Shape, from_json
from kvparity_kernels import rules
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.tiles import BASE, Tiles

SHAPE = Shape(2, 1, 16)
LAUNCHES = """
import json, sys
from kvparity.relations.audit.request import from_json
from kvparity.relations.audit.worker import launches
for line in sys.stdin:
    seen = launches(from_json(json.loads(line)))
    print(json.dumps([arguments.get("BM") for _, arguments in seen]))
"""


@pytest.fixture
def stand_in(monkeypatch):
    """Rules for sm_90 with the Triton that is here."""

    def put(*names):
        here = rules.triton_version()
        found = tuple(
            rules.Rule("sm_90", here, "bfloat16", name, True, "a stand-in", "docs/results/x.json")
            for name in names
        )
        monkeypatch.setattr(rules, "table", lambda: found)
        rules.in_force.cache_clear()

    yield put
    rules.in_force.cache_clear()


def test_a_request_has_the_tiles_in_force_for_its_architecture(stand_in):
    plain = Request("decode", "sm_90", SHAPE)
    assert plain.tiles == BASE
    stand_in("decode_block_m=16", "linear 16x32x128/4w4s")
    found = Request("decode", "sm_90", SHAPE)
    assert found.tiles == Tiles(decode_block_m=16)  # linear layers are not audited
    assert from_json(json.loads(json.dumps(found.as_json()))) == found
    assert _key(found) != _key(plain)  # or an old artefact would be read
    assert Request("decode", "sm_80", SHAPE).tiles == BASE
    assert Request("decode", "sm_90", SHAPE, ReductionOrder(block_m=32)).tiles == BASE


def test_what_is_compiled_is_launched_with_them(stand_in):
    stand_in("decode_block_m=16")
    requests = [
        Request("decode", "sm_90", SHAPE),
        Request("decode", "sm_80", SHAPE),
        Request("prefill", "sm_90", SHAPE),
    ]
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHES],
        input="\n".join(json.dumps(each.as_json()) for each in requests),
        env=os.environ | {"TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [json.loads(line)[0] for line in done.stdout.splitlines()] == [16, 64, 64]


def test_the_report_says_so(stand_in):
    def told():
        order = ReductionOrder()
        comparison = KernelComparison("decode", "prefill", "sm_90", ())
        return Result("sm_90", SHAPE, order, order, comparison, "sm_90")

    assert told().as_json()["tiles"] == told().as_json()["candidate_tiles"] == "base"
    assert not any("tiles" in line for line in pair_lines(told(), False))
    stand_in("decode_block_m=16")
    assert told().as_json()["tiles"] == "decode_block_m=16"
    assert "    tiles in force for it: decode_block_m=16" in pair_lines(told(), False)
