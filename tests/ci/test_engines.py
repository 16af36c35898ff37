"""ci/engines: servers are started and stopped, what failed is asked again, and the page is true."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from engine_steps import asking, command, environments, page
from engine_steps.plan import SESSIONS, ServerSession

from kvparity.servers.http import ServerAddress
from kvparity.servers.metrics import RanTogether
from kvparity.servers.values import Draw, Server
from kvparity_contracts.files import load_whole
from kvparity_contracts.json_types import JsonValue
from kvparity_contracts.linter import lint


@pytest.mark.parametrize("api", ["vllm", "sglang"])
def test_a_contract_has_the_servers_address(tmp_path: Path, api: str) -> None:
    found = load_whole(asking.contract(api, "http://127.0.0.1:7", 512, tmp_path)).contract
    assert found.subject.model_dump()["url"] == "http://127.0.0.1:7"
    assert found.subject.model_dump()["vocabulary"] == 512


@pytest.mark.parametrize("kind", ["server", "model"])
def test_a_contract_of_two_sides_is_one(tmp_path: Path, kind: str) -> None:
    server: dict[str, JsonValue] = {"kind": "server", "api": "vllm", "url": "http://127.0.0.1:7"}
    (tmp_path / "config.json").write_text("{}")
    model: dict[str, JsonValue] = {"kind": "model", "checkpoint": str(tmp_path)}
    rollout = server | {"vocabulary": 512, "path": "batched"}
    trainer = server if kind == "server" else model
    found = load_whole(asking.sides(rollout, trainer, {"bits": "equal"}, tmp_path, 9))
    assert lint(found) == []
    assert found.contract.workloads[0].generate == 9
    assert [len(each) for each in found.contract.workloads[0].prompts or ()] == [*asking.LENGTHS]
    assert ("stale-weights" in found.contract.controls) == (kind == "model")


def test_a_verb_that_prints_no_document_is_said() -> None:
    with pytest.raises(asking.StepError, match=r"kvparity drift: .*many"):
        asking.kvparity("drift", "absent.jsonl", "--worst", "many")


@pytest.mark.parametrize(("seen", "proved"), [(8, True), (7, False), (None, False)])
def test_at_once_is_what_the_servers_metrics_show(
    monkeypatch: pytest.MonkeyPatch, seen: int | None, proved: bool
) -> None:
    tried: list[int] = []

    def together(_: object, asks: list[object], first: int) -> tuple[list[int], RanTogether]:
        tried.append(len(asks))
        assert first == asking.STRANGERS
        return list(range(len(asks))), RanTogether(seen)

    monkeypatch.setattr(asking, "together", together)
    six = [Draw((1,), 4, 1.0, 1)] * 6
    server, at = cast(Server, SimpleNamespace(generate=print)), ServerAddress("http://127.0.0.1:1")
    if proved:
        assert asking.at_once(server, at, six) == [2, 3, 4, 5, 6, 7]
        assert tried == [8]
    else:
        with pytest.raises(asking.StepError, match="never showed 8 requests at once"):
            asking.at_once(server, at, six)


def test_what_failed_is_asked_again_and_the_rest_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def works(_: object) -> dict[str, object]:
        asked.append("works")
        return {"verdict": "holds"}

    def fails(_: object) -> dict[str, object]:
        asked.append("fails")
        if asked.count("fails") == 1:
            raise asking.StepError("it said nothing")
        return {"verdict": "differs"}

    class Stood:
        def __enter__(self) -> str:
            return "http://127.0.0.1:1"

        def __exit__(self, *_: object) -> None:
            asked.append("stopped")

    monkeypatch.setattr(command.models, "make", lambda name, root: root)
    monkeypatch.setattr(command.serving, "served", lambda *_: Stood())
    own = ServerSession("own", "vllm", "seeded", (), {"fails": fails, "works": works})  # type: ignore[dict-item]
    monkeypatch.setattr(command, "SESSIONS", (own,))
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / environments.DONE).touch()
    assert command.run(tmp_path, tmp_path / "out", None) == 1
    assert command.run(tmp_path, tmp_path / "out", None) == 0
    assert command.run(tmp_path, tmp_path / "out", None) == 0
    assert asked == ["fails", "works", "stopped", "fails", "stopped"]


def answer(**more: object) -> dict[str, object]:
    every = {"mean_abs_d": 0.25, "max_abs_d": 0.5, "k3": 0.125}
    return {
        "verdict": "differs",
        "reason": "1 of 4 tokens differ in bits",
        "metrics": {"tokens": 4, "equal_bits": 0.75, "all": every},
        "patterns": [{"name": "temperature"}],
        **more,
    }


CASE = {"path": "decode", "reference": "prefill", "verdict": "void", "tokens": 3,
        "differing_tokens": 2, "max_abs_dlogp": None, "reason": "no proof"}  # fmt: skip
CONTRACT = {
    "verdict": "void",
    "checks": [{"cases": [CASE]}],
    "controls": [{"caught": True}, {"caught": False}],
}

MEASURED = {"mean_abs_d": 0.25, "max_abs_d": 0.5, "k3": 0.125}
SIDES = {
    "verdict": "void",
    "checks": [
        {
            "verdict": "void",
            "reason": "no proof",
            "cases": [CASE | {"parity": {"measured": MEASURED}}],
        }
    ],
    "controls": [{"caught": True}, {"caught": True}],
}


def test_the_page_says_what_was_found_and_what_was_not_run(tmp_path: Path) -> None:
    steps = {
        "contract": CONTRACT, "alone": answer(), "grpo": {"error": "no trl"},
        "sides-batched": SIDES,
    }  # fmt: skip
    about = {"vllm": "1", "sglang": "2", "trl": "3", "cpu": "a cpu", "python": "3"}
    (tmp_path / "engines.md").write_text("old\n\n## What it means\n\nKept.\n")
    page.publish({"versions": about, "own": {"steps": steps}}, tmp_path)  # type: ignore[dict-item]
    text = (tmp_path / "engines.md").read_text()
    assert "| own | decode against prefill | void: no proof | 3 | 2 |  |  |  |  |" in text
    assert "| own | controls | 1 of 2 planted defects caught |" in text
    assert "| own | sides-batched | void: no proof | 3 | 2 | 0.25 | 0.5 | 0.12 |  |" in text
    assert "| own | sides-batched controls | 2 of 2 planted defects caught |" in text
    assert "| own | alone | differs | 4 | 1 | 0.25 | 0.5 | 0.12 | temperature |" in text
    assert "| own | grpo | not run: no trl |" in text
    assert text.endswith("\n## What it means\n\nKept.\n")
    assert "old" not in text
    assert '"differing": 1' in (tmp_path / "engines.json").read_text()


@pytest.mark.parametrize(
    "steps", [{"alone": {"verdict": "holds"}}, {"alone": answer(patterns=None)}, [1]]
)
def test_another_file_is_no_page(steps: object) -> None:
    with pytest.raises((KeyError, TypeError)):
        list(page.rows({"own": {"steps": steps}}))  # type: ignore[dict-item]


REFUSED = {
    "a page of no run": ("page DIR", "engines.json; expected the folder of run"),
    "a page of no JSON": ("page CUT", "engines.json cannot be read: "),
    "a page of a list": ("page LIST", "engines.json is not what run writes: it holds no object"),
    "a page of nothing": ("page EMPTY", "is not what run writes: KeyError('versions')"),
    "no environments": ("run DIR --out DIR/o", "DIR has no environment sglang; expected the"),
    "out is a file": ("run READY --out FILE", "--out FILE cannot be made: File exists"),
    "out holds a list": ("run READY --out LIST", "is not what run writes: it holds no object"),
    "setup over sources": ("setup SOURCES", "SOURCES/vllm holds something that is no environment"),
    "setup in a file": ("setup FILE", "FILE/vllm cannot be made: Not a directory"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_begin_is_one_sentence(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command.serving, "end_on_signals", lambda: None)
    monkeypatch.setattr(environments.subprocess, "run", None)
    given, words = REFUSED[case]
    for name, text in (("CUT", "{"), ("LIST", "[]"), ("EMPTY", "{}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / command.FILE).write_text(text)
    for name in ("vllm", "sglang"):
        (tmp_path / "READY" / name).mkdir(parents=True)
        (tmp_path / "READY" / name / environments.DONE).touch()
    (tmp_path / "FILE").write_text("mine")
    (tmp_path / "SOURCES" / "vllm").mkdir(parents=True)
    (tmp_path / "SOURCES" / "vllm" / "mine.py").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for place in ("CUT", "LIST", "EMPTY", "READY", "FILE", "SOURCES", "DIR"):
        at = str(tmp_path if place == "DIR" else tmp_path / place)
        given, words = given.replace(place, at), words.replace(place, at)
    assert command.main(given.split()) == 2
    err = capsys.readouterr().err
    assert words in err
    assert len(err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_every_session_records_before_it_is_rescored() -> None:
    for session in SESSIONS:
        names = list(session.steps)
        if "float32" in names:
            assert names.index("alone") < names.index("float32")
        if "prefill-float32" in names:
            assert names.index("files") < names.index("prefill-float32")
    assert os.access(Path(__file__).parents[2] / "ci/engines", os.X_OK)
