"""A contract of two sides, read: what is wrong in it, what it says, what a change of it means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gaps.sided import (
    BATCHED,
    BITS,
    FILE,
    GIVEN,
    MODEL,
    NEAR,
    PROMPTS,
    SCORED,
    SERVER,
    SINGLE,
    WIDE,
    made,
    written,
)

from kvparity.cli.main import main
from kvparity_contracts.files import load_whole
from kvparity_contracts.linter import lint
from kvparity_contracts.problems import ContractError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("sides"))


MISTAKES: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "tokens beside recorded ones": (
        {"rollout": FILE, "trainer": MODEL, **GIVEN}, {}, "subject.tokens", "which has its own",
    ),
    "recorded beside drawn anew": (
        {"rollout": MODEL, "trainer": FILE}, {}, "subject.trainer.kind", "draws its tokens anew",
    ),
    "a temperature of nothing drawn": (
        {"rollout": FILE, "trainer": MODEL, "temperature": 0.7}, {},
        "subject.temperature", "a rollout that draws no tokens",
    ),
    "recorded routes of tokens that are drawn": (
        {"rollout": MODEL, "trainer": MODEL | {"routes": "recorded"}}, {},
        "subject.trainer", "a rollout that draws: it records none",
    ),
    "a path of a trainer": (
        {"rollout": SCORED, "trainer": BATCHED}, {}, "subject.trainer.path", "by its prefill",
    ),
    "a path with given tokens": (
        {"rollout": BATCHED, "trainer": MODEL, **GIVEN}, {}, "subject.rollout.path", "no path",
    ),
    "no vocabulary": (
        {"rollout": {k: v for k, v in SERVER.items() if k != "vocabulary"}, "trainer": MODEL}, {},
        "subject.rollout", "expected vocabulary, the vocab_size",
    ),
    "a model beside itself": (
        {"rollout": MODEL, "trainer": MODEL, **GIVEN}, {}, "subject.trainer", "agree with itself",
    ),
    "a model beside itself, spelled otherwise": (
        {"rollout": MODEL, "trainer": MODEL | {"checkpoint": f"./{MODEL['checkpoint']}/"}}, {},
        "subject.trainer", "agree with itself",
    ),
    "a model that draws beside itself": (
        {"rollout": MODEL, "trainer": MODEL}, {}, "subject.trainer", "agree with itself",
    ),
    "a server beside itself": (
        {"rollout": SERVER, "trainer": SERVER | {"timeout": 9.0}, **GIVEN}, {},
        "subject.trainer", "agree with itself",
    ),
    "no workloads": (
        {"rollout": MODEL, "trainer": SINGLE}, {"workloads": None},
        "", "the key 'workloads' is missing",
    ),
    "workloads beside recorded tokens": (
        {"rollout": FILE, "trainer": MODEL}, {"workloads": PROMPTS},
        "workloads", "whose tokens are given",
    ),
    "workloads beside given tokens": (
        {"rollout": MODEL, "trainer": SINGLE, **GIVEN}, {"workloads": PROMPTS},
        "workloads", "whose tokens are given",
    ),
    "ids outside of the vocabulary": (
        {"rollout": SERVER, "trainer": WIDE},
        {"workloads": [{"name": "w", "prompts": [[256]], "generate": 2}]},
        "workloads[0].prompts[0]", "ids below 256",
    ),
    "an address with a key": (
        {"rollout": FILE, "trainer": SERVER | {"url": "http://me:secret@host"}}, {},
        "subject.trainer.url", "no name or password",
    ),
    "no file of tokens": (
        {"rollout": MODEL, "trainer": SINGLE, "tokens": "idz.jsonl"}, {},
        "subject.tokens", "mean ids.jsonl?",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_told_at_its_place(mistake: str, folder: Path) -> None:
    subject, parts, key, words = MISTAKES[mistake]
    file = written(folder, "http://127.0.0.1:1", BITS, subject, **parts)
    with pytest.raises(ContractError) as caught:
        load_whole(file)
    (problem,) = caught.value.problems
    assert (problem.key, words in str(problem)) == (key, True), str(problem)
    last = f'"{key.rpartition(".")[2].partition("[")[0]}"'
    lines = file.read_text().splitlines()
    assert key == "" or last in "".join(lines[problem.line - 2 : problem.line])
    assert "secret" not in str(problem)


def test_what_would_not_be_used_or_shown_is_told(folder: Path) -> None:
    subject = {"rollout": MODEL, "trainer": SINGLE}
    workloads = [PROMPTS[0] | {"pad": ["left"]}]
    named = {"controls": ["stored-zero", "other-dtype"], "workloads": workloads}
    pad, control = lint(load_whole(written(folder, "", NEAR, subject, **named)))
    assert (pad.key, control.key) == ("workloads[0].pad", "controls[1]")
    assert "it takes a side that is a model, no two models in different" in control.message


def test_a_contract_of_two_sides_is_explained(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = {"rollout": BATCHED, "trainer": MODEL, "temperature": 0.7}
    given = {"rollout": MODEL, "trainer": SINGLE, **GIVEN}
    for subject, words in (
        (drawn, "    model model against server http://a:1, on tokens that it draws at tempera"),
        (drawn, "workload w: 2 prompts, 6 tokens drawn from each\n"),
        (given, "    model model against model model, on the tokens of ids.jsonl\n"),
        ({"rollout": FILE, "trainer": MODEL}, "recorded ids.jsonl, on the recorded tokens\n"),
    ):
        assert main(["contract", "explain", str(written(folder, "http://a:1", NEAR, subject))]) == 0
        out = capsys.readouterr().out
        assert words in out, out
        assert " keys" not in out


WEAKER: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "limits in place of bits": (NEAR, {}, "lost: parity: equal bits over w float32"),
    "more may be unmatched": (BITS | {"unmatched": 2}, {}, "weakened: parity, unmatched: 0 to 2"),
    "another workload": (
        BITS, {"workloads": [PROMPTS[0] | {"name": "v"}]}, "lost: parity: equal bits over w",
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", WEAKER)
def test_a_change_that_claims_less_is_told(
    change: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check, parts, words = WEAKER[change]
    subject = {"rollout": BATCHED, "trainer": MODEL}
    old = folder / "old.yaml"
    written(folder, "http://a:1", BITS, subject).rename(old)
    new = written(folder, "http://a:1", check, subject, **parts)
    assert main(["contract", "diff", str(old), str(new)]) == 1
    assert words in capsys.readouterr().out
