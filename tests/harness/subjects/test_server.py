"""A running server as a subject: verifications of the stand-in, each fault beside its verdict.

Each verification asks the server of this process; the rows of fresh processes are asked in the one
test of the command line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
from server_stand_in import StandIn, serving

from kvparity.core.errors import RunFolderError, SubjectError, UnsupportedError
from kvparity.run import verify as verification
from kvparity.run import worker
from kvparity.servers import metrics
from kvparity.servers.connect import connect
from kvparity.servers.http import ServerAddress
from kvparity.servers.metrics import RanTogether
from kvparity.servers.semantics import logprob_semantics
from kvparity.servers.values import DrawnIds
from kvparity.subjects.server import subject
from kvparity_contracts.json_types import JsonObject
from kvparity_contracts.loader import load

BITS = {"name": "bits", "relation": "invariance", "reference": "prefill"}
PATHS = ("decode", "batched", "prefix(4)")


def document(
    url: str, paths: tuple[str, ...] = ("decode",), **changes: object
) -> dict[str, object]:
    subject = {"kind": "server", "api": "vllm", "url": url, "timeout": 5, "vocabulary": 256}
    more = changes.pop("subject", {})
    assert isinstance(more, Mapping)
    return {
        "version": 1,
        "name": "served",
        "seed": 3,
        "subject": subject | more,
        "numerics": {"execution": "bfloat16"},
        "workloads": [{"name": "w", "prompt_tokens": [5, 9], "generate": 5}],
        "checks": [{**BITS, "paths": list(paths)}],
        "controls": ["id-reported-as-another" if paths == ("batched",) else "retokenised"],
        **changes,
    }


def verify(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    contract: Mapping[str, object],
    *,
    resume: bool = False,
) -> JsonObject:
    monkeypatch.setattr(worker, "_subjects", {})
    file = tmp_path / "contract.yaml"
    file.write_text(json.dumps(contract))
    return verification.verify(
        load(file),
        device="cpu",
        folder=tmp_path / "run",
        jobs=1,
        resume=resume,
        command="kvparity verify contract.yaml",
        progress=lambda done, total, what: None,
    ).document()


def found(report: JsonObject) -> tuple[object, str]:
    """The verdict, and all reasons of checks."""
    return report["verdict"], json.dumps(report["checks"])


ROWS = (
    # paths, faults of the server, its other settings, the verdict, words of it
    (("decode",), "", {}, "holds", ""),
    (("decode",), "alone-differs", {}, "differs", "bits differ"),
    (("batched",), "alone-differs", {"holds": True}, "holds", ""),
    (("batched",), "hides-batching", {"holds": True}, "void", "show at most 1 running together"),
    (("batched",), "no-metrics", {}, "void", "does not show how many requests run"),
    (("prefix(4)",), "", {}, "holds", ""),
    (("prefix(4)",), "cached-differs", {}, "differs", "bits differ"),
    (("prefix(4)",), "hides-cache", {}, "void", "the server does not say what it read"),
    (("prefix(4)",), "no-cache", {}, "void", "the server says that it read nothing"),
    (("reset",), "", {}, "holds", ""),
    (("reset",), "cannot-empty", {}, "void", "prefix cache cannot be emptied"),
    (
        ("decode",),
        "warm cannot-empty",
        {},
        "void",
        "tokens from the prefix cache, and this path is",
    ),
    (("decode",), "unsteady", {}, "differs", "bits differ"),
)


IDS = ["-".join((path, *(faults.split() or ["fine"]))) for (path,), faults, *_ in ROWS]


@pytest.mark.parametrize(("paths", "faults", "more", "verdict", "words"), ROWS, ids=IDS)
def test_each_fault_has_its_verdict(
    paths: tuple[str, ...],
    faults: str,
    more: Mapping[str, bool],
    verdict: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "PATIENCE", 0.1)
    monkeypatch.setattr(subject, "TRIES", 2)
    with serving(StandIn("vllm", frozenset(faults.split()), **more)) as stand_in:  # type: ignore[arg-type]
        report = verify(tmp_path, monkeypatch, document(stand_in.url, paths))
    assert found(report)[0] == verdict, found(report)
    assert words in found(report)[1]


def test_strangers_begin_first_and_end_last_until_all_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, list[int]]] = []

    def together(at: object, asks: list[partial[DrawnIds]], first: int) -> object:
        sent.append((first, [each.args[0].count for each in asks]))
        seen = 0 if len(sent) == 1 else len(asks)  # the first time the metrics show none
        return [ask() for ask in asks], RanTogether(seen)

    monkeypatch.setattr(subject, "together", together)
    with serving(StandIn()) as stand_in:
        report = verify(tmp_path, monkeypatch, document(stand_in.url, ("batched",)))
    assert found(report)[0] == "holds", found(report)
    assert sent[:2] == [(2, [10, 10, 5, 5])] * 2


def test_every_path_holds_on_sglang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ids that are reported as 0, its own metrics and flags; no key in any file."""
    monkeypatch.setenv("TOY_KEY", "sk-1")
    with serving(StandIn("sglang", holds=True)) as stand_in:
        contract = document(
            stand_in.url, PATHS, subject={"api": "sglang", "key_variable": "TOY_KEY"}
        )
        stand_in.busy = 1  # as SGLang is for a moment after an answer
        report = verify(tmp_path, monkeypatch, contract)
    assert found(report)[0] == "holds", found(report)
    assert stand_in.busy == 0
    told = report["subject"]
    assert isinstance(told, dict)
    assert told["flags"] == {"dtype": "bfloat16", "tp_size": 1, "version": "0.5.23"}
    assert told["logprobs"] == "raw"
    assert "Bearer sk-1" in stand_in.keys
    files = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert files
    assert not any(b"sk-1" in each for each in files)


def test_prompts_that_begin_alike_do_not_warm_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = {"name": "w", "prompts": [[5, 9, 9], [5, 8, 1, 2]], "generate": 3}
    with serving(StandIn(faults=frozenset({"cached-differs"}))) as stand_in:
        report = verify(tmp_path, monkeypatch, document(stand_in.url, workloads=[workload]))
    assert found(report)[0] == "holds", found(report)


@pytest.mark.parametrize("draws", ["greedy", "sampled"])
@pytest.mark.parametrize("processed", [False, True])
def test_the_semantics_of_logprobs_are_found_out_by_asking(
    draws: str, processed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(StandIn(processed=processed)) as stand_in:
        told = logprob_semantics(connect(ServerAddress(stand_in.url)))
        assert told == ("processed" if processed else "raw")
        temperature = 1.0 if draws == "greedy" else 0.7
        contract = document(
            stand_in.url,
            subject={"draws": draws},
            numerics={"execution": "bfloat16", "temperatures": temperature},
        )
        if processed and draws == "sampled":
            with pytest.raises(UnsupportedError, match="of this server are processed"):
                verify(tmp_path, monkeypatch, contract)
        else:
            assert found(verify(tmp_path, monkeypatch, contract))[0] == "holds"


def test_a_server_that_dies_loses_no_finished_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(StandIn(holds=True)) as stand_in:
        contract = document(stand_in.url, PATHS)
        # Two requests ask for the semantics; the unit of one path is 2 draws and 2 scores.
        stand_in.faults, stand_in.answers_before_fault = frozenset({"dies"}), 9
        with pytest.raises(SubjectError, match="did it die"):
            verify(tmp_path, monkeypatch, contract)
        finished = (tmp_path / "run/cases.jsonl").read_text().splitlines()
        assert len(finished) == 1
        stand_in.faults = frozenset()
        report = verify(tmp_path, monkeypatch, contract, resume=True)
    assert found(report)[0] == "holds", found(report)
    lines = (tmp_path / "run/cases.jsonl").read_text().splitlines()
    assert lines[0] == finished[0]
    assert len(lines) == 3


def test_another_server_is_no_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(StandIn()) as stand_in:
        contract = document(stand_in.url)
        verify(tmp_path, monkeypatch, contract)
        stand_in.version = "0.33.0"
        with pytest.raises(RunFolderError, match="subject_files changed since it began"):
            verify(tmp_path, monkeypatch, contract, resume=True)


@pytest.mark.parametrize(
    ("subject", "execution", "sentence"),
    [
        ({"api": "vllm"}, "bfloat16", "the server is sglang, and the contract says vllm"),
        ({"model": "m"}, "bfloat16", "the server serves toy; and m was asked for"),
        ({}, "float32", "the server runs in bfloat16, and the contract says float32"),
    ],
)
def test_a_server_that_is_another_than_the_contract_says(
    subject: dict[str, str],
    execution: str,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(StandIn("sglang")) as stand_in:
        more = {"api": "sglang"} | subject
        numerics = {"execution": execution}
        contract = document(stand_in.url, subject=more, numerics=numerics)
        with pytest.raises(SubjectError, match=sentence):
            verify(tmp_path, monkeypatch, contract)
