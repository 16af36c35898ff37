"""Two real ranks, with gloo: a small decoder holds, and every planted defect is caught."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import toy

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.core.isolation import ranks
from kvparity.core.isolation.inside import here
from kvparity.relations.tp.relation import TpRelation
from kvparity.run import verify as verification
from kvparity.run.replay import replay
from kvparity_contracts.controls.ranks import OF_RANKS
from kvparity_contracts.loader import load

CONFIG = {
    "vocab_size": 256, "hidden_size": 32, "intermediate_size": 64, "layers": 1, "heads": 4,
    "kv_heads": 2, "head_dim": 16, "attention_bias": True, "max_positions": 32,
}  # fmt: skip
SUBJECT = {"kind": "decoder", "config": CONFIG, "row_blocks": 4}
CHECK = {"name": "ranks", "relation": "tp-invariance", "ranks": [1, 2], "limit_s": 120}
WORKLOADS = [{"name": "w", "prompt_tokens": [3, 7], "generate": 4}]


@pytest.fixture(scope="module", autouse=True)
def ended() -> Iterator[None]:
    yield
    ranks.end()


def verify(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    whole = {
        "subject": SUBJECT, "checks": [CHECK], "workloads": WORKLOADS,
        "numerics": {"execution": "float32", "temperatures": [1.0, 0.7]},
        "controls": ["rank-with-stale-weights"],
    } | changes  # fmt: skip
    file = tmp_path / "contract.yaml"
    file.write_text(json.dumps(toy.document(**whole)))
    with here():
        return verification.verify(
            load(file), device="cpu", folder=tmp_path / "run", jobs=1, resume=False,
            command="kvparity verify contract.yaml", progress=lambda *_: None,
        ).document()  # fmt: skip


@pytest.mark.slow
def test_two_ranks_have_the_bits_of_one_and_defects_are_caught(tmp_path: Path) -> None:
    shown = [row.name for row in OF_RANKS if "four-ranks" not in row.features]
    report = verify(tmp_path, controls=shown)
    (check,) = report["checks"]
    assert check["verdict"] == "holds", check["reason"]
    assert check["reason"] == "1 case, bits are equal at every number of ranks; 5 controls caught"
    (case,) = check["cases"]
    found = case["tp-invariance"]
    assert (found["reduce"], found["row_blocks"], found["first"]) == ("fixed", 4, None)
    assert [(each["ranks"], each["path"]) for each in found["found"]] == [
        (1, "decode"), (2, "decode"), (2, "prefill"),
    ]  # fmt: skip
    # A row is 32 columns of 4 bytes; a step of prefill has all of a prompt's and generated rows.
    sums = [each["collectives"] for each in found["found"]]
    rows = sum(length + 4 for length in (3, 7))
    assert sums[0] == []
    assert sums[2] == [
        {"operator": "allgather_", "ranks": 2, "dtype": "float32", "times": 4,
         "bytes": 2 * rows * 32 * 4},
    ]  # fmt: skip
    assert (sums[1][0]["times"], sums[1][0]["operator"]) == (16, "allgather_")
    controls = {each["name"]: (each["caught"], each["seen"]) for each in report["controls"]}
    assert {name: caught for name, (caught, _) in controls.items()} == dict.fromkeys(shown, True)
    void = controls["unasked-all-reduce"][1]
    assert void.startswith("void: decode at 2 ranks: allreduce_ ran"), void


@pytest.mark.slow
def test_one_chain_has_other_bits_at_two_ranks(tmp_path: Path) -> None:
    plain = {key: it for key, it in SUBJECT.items() if key != "row_blocks"}
    summed = CHECK | {"reduce": "all_reduce"}
    report = verify(tmp_path, subject=plain, checks=[summed])
    (check,) = report["checks"]
    assert check["verdict"] == "differs"
    (case,) = check["cases"]
    assert case["reason"] == "decode at 2 ranks: bits differ"
    first = case["tp-invariance"]["first"]
    assert (first["ranks"], first["path"]) == (2, "decode")
    # What parts first is a sum over ranks, and not what is computed of it.
    assert first["operation"] in ("layers.0 o_proj", "layers.0 down_proj")
    divergence = case["first_divergence"]
    assert (divergence["sequence"], divergence["token"] is None) == ("w/0", False)
    assert case["max_abs_dlogp"] > 0
    again = replay(load(tmp_path / "contract.yaml"), tmp_path / "run", case["id"], "cpu")
    assert (again.same, again.verdict, again.row) == (True, "differs", None)
    assert again.entry.sides == ("prefill, 1 rank", "decode, 2 ranks")
    (line,) = TpRelation().spots(again.entry)
    assert line.endswith(f"at 2 ranks, decode, in {first['operation']}")


@pytest.mark.slow
def test_ranks_that_take_too_long_end_the_run_in_one_sentence(tmp_path: Path) -> None:
    ranks.end()  # so that they have to start, which takes longer than a second
    with pytest.raises(SubjectError, match="not done after 1 s, the limit: rank 0 in ") as caught:
        verify(tmp_path, checks=[CHECK | {"limit_s": 1}])
    assert "\n" not in str(caught.value)
    assert ranks._kept == []


def test_what_is_no_decoder_is_refused() -> None:
    from kvparity.relations.tp.rank import ranked

    subject = toy.Toy()
    side = type("Side", (), {"setting": type("Setting", (), {"subject": subject})})
    with pytest.raises(UnsupportedError, match="a decoder alone is cut over ranks"):
        ranked(side, [], CHECK, 2)
