"""Evidence of a device becomes files and the column of a table; here all of it is made up."""

from __future__ import annotations

import json

import pytest
from gpu_steps import publish as gpu_publish
from gpu_steps.publish import NOTHING, PublishError, evidence, filled, publish
from gpu_steps.record import ResultsFolder, StepOutcome

FACTS = {"device": "Made-Up GPU 1", "torch": "2.0", "triton": "3.0", "python": "3.12"}
TABLE = """# A page

| question | command | result |
| --- | --- | --- |
| Of another table? | `ci/gpu --only a` | as it was |

## On a CUDA device

Words.

| question | command | result |
| --- | --- | --- |
| Does a hold? | `ci/gpu --only a`: `kvparity verify a` | not measured |
| Both? | `ci/gpu --only a order-b` | not measured |
| Not asked | `ci/gpu --only c` | {c} |
| No command | no command yet | not measured |

More words.
"""


def verified(verdict: str) -> dict:
    return {
        "schema_version": 1,  # an older report keeps the version under which its measures are read
        "verdict": verdict,
        "checks": [{"cases": [{"id": "c1"}, {"id": "c2"}]}],
        "controls": [{"caught": True}, {"caught": False}],
    }


@pytest.fixture
def folder(tmp_path):
    """What ci/gpu writes."""

    def make(facts=FACTS):
        record = ResultsFolder(tmp_path / "out", facts)
        ran = {"asks": "?", "command": "x", "rc": 0, "seconds": 1.5}
        fine = StepOutcome(step="a", state="ok", verdict="holds", **ran)
        record.keep(fine, verified("holds"))
        wrong = {"state": "failed", "verdict": "different-order", "reason": "expected | other"}
        record.keep(StepOutcome(step="order-b", **wrong, **ran), {"verdict": "different-order"})
        record.keep(StepOutcome(step="c", state="timeout", reason="stopped", **ran), None)
        record.left_out("d", "?", "no time")
        record.write(["a", "order-b", "c", "d"], (), "ci/gpu")
        return tmp_path / "out"

    return make


def test_answers_become_files_that_say_of_what(folder, tmp_path):
    written = publish(folder(), tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in written} == {
        "device/made-up-gpu-1/a.json",
        "device/made-up-gpu-1/order-b.json",
    }
    found = json.loads(written[0].read_text())
    assert (found["facts"], found["command"], found["verdict"]) == (FACTS, "x", "holds")
    assert found["document"] == verified("holds")


def test_the_column_is_what_the_evidence_says(folder, tmp_path):
    before = TABLE.format(c="a claim that nothing bears out")
    assert filled(before, []) == TABLE.format(c=NOTHING)
    publish(folder(), tmp_path)
    page = filled(before, evidence(tmp_path))
    lines = page.splitlines()
    told = (
        "Made-Up GPU 1, torch 2.0, Triton 3.0: [a](device/made-up-gpu-1/a.json) "
        "holds: 2 cases, 1 of 2 controls caught"
    )
    assert f"| Does a hold? | `ci/gpu --only a`: `kvparity verify a` | {told} |" in lines
    order = (
        "; [order-b](device/made-up-gpu-1/order-b.json) failed: different-order: expected \\| other"
    )
    assert f"| Both? | `ci/gpu --only a order-b` | {told}{order} |" in lines
    assert f"| Not asked | `ci/gpu --only c` | {NOTHING} |" in lines  # a timeout is no answer
    assert "| Of another table? | `ci/gpu --only a` | as it was |" in lines
    assert filled(page, evidence(tmp_path)) == page  # again is the same
    assert filled(page, []) == TABLE.format(c=NOTHING)  # evidence that is taken away


def test_two_devices_stand_side_by_side(folder, tmp_path):
    publish(folder(), tmp_path)
    other = tmp_path / "device" / "other"
    other.mkdir()
    one = json.loads((tmp_path / "device/made-up-gpu-1/a.json").read_text())
    one["facts"]["device"] = "Other"
    (other / "a.json").write_text(json.dumps(one))
    line = next(
        line for line in filled(TABLE, evidence(tmp_path)).splitlines() if "Does a hold" in line
    )
    assert "Made-Up GPU 1, torch 2.0, Triton 3.0: " in line
    assert ". Other, torch 2.0, Triton 3.0: [a](device/other/a.json) holds" in line


def test_what_is_no_evidence_is_refused(folder, tmp_path, capsys):
    with pytest.raises(PublishError, match="no output folder"):
        publish(tmp_path / "nowhere", tmp_path)
    with pytest.raises(PublishError, match="no answer of a device"):
        publish(folder(FACTS | {"device": None}), tmp_path)
    assert gpu_publish.main([str(tmp_path / "nowhere")]) == 2
    assert "publish: " in capsys.readouterr().err
    with pytest.raises(PublishError, match="has no"):
        filled("nothing", [])
