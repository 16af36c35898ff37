"""The static profile: its readers see a spill, its arithmetic, and a page that is its JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from profile_limits import LIMITS, fit
from profile_page import page
from profile_reading import Operations, Usage, facts, operations, usage

from kvparity.relations.audit.sass import Counts

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
PLANTED = """
import json
import static_profile as profile
from kvparity.relations.audit.capture import Launch
from kvparity.relations.audit.request import Request, Shape
from kvparity.relations.audit.worker import launches
(kernel, arguments), _ = launches(Request("decode", "sm_90", Shape(8, 2, 64)))
launch = [Launch(kernel, arguments | {"num_warps": n}) for n in (4, 1)]
found = [profile.profiled("sm_90", each) for each in launch]
print(json.dumps(found))
"""


@pytest.mark.compile
def test_a_kernel_that_is_given_too_few_registers_is_seen_to_spill():
    """The tile that four warps hold, held by one."""
    done = subprocess.run(
        [sys.executable, "-c", PLANTED],
        env=os.environ | {"TRITON_INTERPRET": "0", "PYTHONPATH": path()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    fine, spilling = json.loads(done.stdout)
    assert (fine["spilled_bytes"], fine["spill_loads"], fine["flags"]) == (0, 0, [])
    assert fine["multiplies_by"] == "wgmma"
    assert fine["async_copies"] > 0
    assert spilling["registers"] == 255
    assert spilling["spilled_bytes"] > 0
    assert spilling["spill_loads"] > 0
    assert spilling["spill_stores"] > 0
    assert spilling["flags"] == [f"spills {spilling['spilled_bytes']} bytes a thread"]
    assert (fine["threads"], spilling["threads"]) == (128, 32)


def path() -> str:
    folders = ("harness", "kernels", "contracts", "ci/studies")
    return os.pathsep.join(str(ROOT / name) for name in folders)


@pytest.mark.parametrize(
    ("arch", "threads", "registers", "shared", "blocks", "bound"),
    [
        ("sm_90", 128, 255, 0, 2, "registers"),
        ("sm_90", 128, 128, 0, 4, "registers"),
        ("sm_90", 128, 32, 81920, 2, "shared memory"),
        ("sm_80", 128, 32, 81920, 2, "shared memory"),
        ("sm_90", 256, 24, 0, 8, "threads"),
        ("sm_90", 32, 16, 0, 32, "blocks"),
        ("sm_90", 128, 32, 227 << 10, 1, "shared memory"),
        ("sm_80", 128, 32, 164 << 10, 0, "shared memory"),  # a block may hold 163 KiB
        ("sm_100", 1024, 128, 0, 0, "registers"),
    ],
)
def test_blocks_of_a_multiprocessor(arch, threads, registers, shared, blocks, bound):
    found = fit(arch, threads, registers, shared)
    assert (found.blocks, found.bound) == (blocks, bound)
    assert found.warps(threads) == blocks * threads // 32


def test_what_does_not_fit_is_flagged():
    row = facts(
        "sm_80",
        4,
        LIMITS["sm_80"].block_shared + 1,
        Usage(32, 0),
        Operations(Counts(0, 0, 0, 0, {}), 0, 0, 0),
    )
    assert row["flags"] == ["does not fit: shared memory"]


def test_texts_that_are_something_else_are_refused():
    with pytest.raises(ValueError, match="expected one"):
        usage("Resource usage:\n")
    with pytest.raises(ValueError, match="no SASS"):
        operations("nothing")


def test_instructions_are_counted_by_kind():
    text = "\n".join(
        f"        /*{i:04x}*/                   {line} ;"
        for i, line in enumerate(
            ("LDGSTS.E.BYPASS.128 [R1], [R2.64]", "@P0 LDL R1, [R2]", "STL [R2], R1", "FFMA R1, R2",
             "FFMA2 R1, R2", "HMMA.16816.F32.BF16 R1, R2, R3, R4")
        )
    )  # fmt: skip
    found = operations(text)
    assert (found.copies, found.loads, found.stores, found.counts.fma) == (1, 1, 1, 3)
    assert (found.kind, found.counts.matrix) == ("mma.sync", {"HMMA.16816.F32.BF16": 1})


def document() -> dict:
    return json.loads((RESULTS / "static-profile.json").read_text())


def test_the_page_is_the_document():
    assert (RESULTS / "static-profile.md").read_text() == page(document())
    assert "No device was asked" in page(document())
    assert document()["device"] is None


def test_sizes_alike_share_a_line_and_no_other_does():
    found = document()
    row = next(r for r in found["kernels"] if r["kernel"] == "linear.linear")
    other = row | {"sizes": {"N": 1, "K": 2}}
    worse = other | {"registers": row["registers"] + 1}

    def told(*rows):
        lines = page(found | {"kernels": list(rows), "flagged": []}).split("## Bytes")[0]
        return [line for line in lines.splitlines() if line.startswith("| `")]

    assert told(row, other) == [told(row)[0].replace(sizes(row), f"{sizes(row)}; N 1, K 2")]
    assert len(told(row, worse)) == 2


def sizes(row):
    return ", ".join(f"{name} {value:,}" for name, value in row["sizes"].items())


def test_every_flag_is_told():
    found = document()
    rows = [row for row in found["kernels"] if row["spilled_bytes"] or not row["blocks_per_sm"]]
    assert len(found["flagged"]) == sum(len(row["flags"]) for row in found["kernels"])
    assert all(row["flags"] for row in rows)
    told = page(found)
    assert all(f"- {each}\n" in told for each in found["flagged"])
    rows = {(row["arch"], row["dtype"]) for row in found["kernels"]}
    assert rows == {(arch, dtype) for arch in LIMITS for dtype in ("bfloat16", "float32")}
