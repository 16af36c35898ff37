"""Which tokens a path is run over, and which files and sizes a subject is asked for."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import toy

from kvparity.plan.workload import Prompts, text_tokens
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record import path_run
from kvparity.record.path_run import PathRun, Setting
from kvparity.relations.audit.compare import Field, KernelComparison
from kvparity.relations.audit.relation import _fields
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.order.line import OrderDetails
from kvparity.relations.order.relation import _worst
from kvparity.run.identity import subject_files
from kvparity.subjects.base import UnsupportedError
from kvparity_contracts.loader import LoadedContract
from kvparity_contracts.paths import PathName

PROMPTS = Prompts("w", ("w/0", "w/1"), ((5, 6, 7), (9,)), 3)
PLANS = WorkloadPlans(PROMPTS, 3)
TOKENS = [[5, 6, 7, 255, 0, 82], [9, 90, 91, 92]]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a path was asked to run, and is not."""
    said: list[dict[str, Any]] = []

    def run(subject: Any, plan: Any, tokens: Any, **more: Any) -> str:
        said.append({"plan": plan, "tokens": tokens} | more)
        return "a record"

    monkeypatch.setattr(path_run, "run", run)
    return said


def run(path: str, *, vocab: int = 256, **more: Any) -> object:
    setting, subject = toy.setting(), toy.Toy()
    subject.vocab = vocab
    tokens = [[each * (vocab > 0) for each in own] for own in TOKENS]
    return PathRun(setting, subject, PLANS, PathName.parse(path), tokens).run(**more)


OTHERS: dict[str, list[list[int]]] = {
    "decode": [],
    "prefix(2)": [[5, 6, 8, 0]],  # a donor of four tokens goes on otherwise than its sequence
    "prefix(1)": [[5, 7, 8]],
    "batched(3)": [[*text_tokens(3, "(stranger)/3/0/0", 4)]],
    "mixed": [[*text_tokens(3, "(stranger)/0", 5)], [*text_tokens(3, "(stranger)/1", 11)]],
}


@pytest.mark.parametrize("path", OTHERS)
def test_strangers_and_donors_bring_tokens_of_their_own(
    path: str, ran: list[dict[str, Any]]
) -> None:
    assert run(path) == "a record"
    assert ran[0]["tokens"] == TOKENS + OTHERS[path]
    assert all(
        len(own) == member.length
        for own, member in zip(ran[0]["tokens"], ran[0]["plan"].members, strict=True)
    )
    assert ran[0]["before"] is None
    assert ran[0]["temperatures"] == (1.0, 0.7)


def test_without_a_vocabulary_other_tokens_are_ones_and_strangers_have_none(
    ran: list[dict[str, Any]],
) -> None:
    for path in ("prefix(2)", "batched(3)"):
        run(path, vocab=0)
    assert [each["tokens"][2:] for each in ran] == [[[0, 0, 1, 1]], [[0] * 4]]


def test_before_a_reset_every_token_is_another(ran: list[dict[str, Any]]) -> None:
    run("reset")
    assert ran[0]["before"] == [[6, 7, 8, 0, 1, 83], [10, 91, 92, 93]]


def test_what_is_asked_of_a_run_is_handed_on(ran: list[dict[str, Any]]) -> None:
    given: dict[str, Any] = {"choose": object(), "keep": frozenset([(0, 1)])}
    run("decode", **given, cut=lambda plan: replace(plan, schedule=plan.schedule[:1]))
    assert {name: ran[0][name] for name in given} == given
    assert len(ran[0]["plan"].schedule) == 1
    one = PathRun(toy.setting(), toy.Toy(), PLANS, PathName("decode"), TOKENS)
    del given["choose"]
    one.run(**given)
    assert {name: ran[1][name] for name in given} == given
    assert ran[1]["plan"] == one.plan


@pytest.mark.parametrize(("positions", "fits"), [(21, True), (20, False)])
def test_the_longest_sequence_has_to_fit(positions: int, fits: bool) -> None:
    subject = toy.Toy()
    subject.max_positions = positions
    setting = Setting(toy.contract(), subject)
    assert setting.plans("padded").prompts.longest == 12
    if fits:
        assert setting.plans("short").prompts.longest == 21
        return
    with pytest.raises(UnsupportedError, match="has 21 tokens, but the subject has 20 positions"):
        setting.plans("short")


def test_ids_that_the_vocabulary_lacks_are_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: Any, **__: Any) -> Prompts:
        raise ValueError("it lacks id 300")

    monkeypatch.setattr(path_run, "fill", lacking)
    with pytest.raises(UnsupportedError, match="it lacks id 300"):
        Setting(toy.contract(), toy.Toy()).plans("short")


def test_other_tokens_are_of_the_vocabulary(ran: list[dict[str, Any]]) -> None:
    subject = toy.Toy()
    subject.vocab = 2
    tokens = [[0, 1, 1, 0, 1, 0], [1, 0, 0, 1]]
    PathRun(toy.setting(), subject, PLANS, PathName("reset"), tokens).run()
    assert ran[0]["before"] == [[1, 0, 0, 1, 0, 1], [0, 1, 1, 0]]


# files


PAIR = {"kind": "attention", "heads": {"query": 2, "kv": 1, "dim": 4}}


def loaded(folder: Path, **subject: Any) -> LoadedContract:
    contract = toy.contract(
        subject=subject, controls=["stale-slot"], numerics={"execution": "float32"},
        checks=[{"name": "bits", "relation": "invariance", "paths": ["decode"]}],
    )  # fmt: skip
    given = SimpleNamespace(contract=contract, path=str(folder / "c.yaml"), prompt_files=())
    return given  # type: ignore[return-value] # as far as files go


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("mine.py", "beside/__init__.py", "beside/deep.py", "site/alone.py",
                 "site/spaced/deep.py", "site/pack/__init__.py", "site/pack/in.py"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path


@pytest.mark.parametrize(
    ("target", "file"),
    [
        ("mine.py", "mine.py"),
        ("gone.py", "gone.py"),
        ("beside", "beside/__init__.py"),
        ("beside.deep", "beside/deep.py"),
        ("alone", "site/alone.py"),
        ("alone.deep", None),  # no package
        ("spaced", None),  # a namespace has no file
        ("spaced.deep", "site/spaced/deep.py"),
        ("pack", "site/pack/__init__.py"),
        ("pack.in", "site/pack/in.py"),
        ("pack.out", None),
        ("nowhere", None),
        ("nowhere.deep", None),
    ],
)
def test_the_file_that_a_function_comes_from(target: str, file: str | None, folder: Path) -> None:
    about = loaded(folder, **PAIR, prefill=f"{target}:f", decode="mine.py:decode")
    own = {str(folder / "mine.py"): hashlib.sha256(b"mine.py").hexdigest()}
    wanted = {}
    if file is not None:
        known = hashlib.sha256(file.encode()).hexdigest()
        wanted = {str(folder / file): "missing" if file == "gone.py" else known}
    assert subject_files(about) == own | wanted


def test_what_of_a_checkpoint_counts(folder: Path) -> None:
    model = folder / "model"
    (model / "deep.json").mkdir(parents=True)
    (model / "deep").mkdir()
    wanted = ("a.json", "b.safetensors", "c.model", "d.txt", "e.jinja")
    for name in (*wanted, "README.md", "f.py", "deep/g.json"):
        (model / name).write_text(name)
    about = loaded(folder, kind="decoder", checkpoint="model")
    found = subject_files(about)
    assert tuple(found) == wanted
    about_e = (model / "e.jinja").stat()
    assert found["e.jinja"] == f"{len('e.jinja')} bytes, {about_e.st_mtime_ns}"
    assert subject_files(loaded(folder, kind="decoder", preset="tiny")) == {}


# cases of kernels


def finding(outcome: Any, reason: str) -> Comparison:
    return Comparison(outcome, reason, details=OrderDetails.model_construct(adder=reason))


@pytest.mark.parametrize(
    ("kinds", "outcome", "reason", "details"),
    [
        (("holds", "holds"), "holds", "full: a; window: b", "a"),
        (("holds", "void"), "void", "window: b", "b"),
        (("void", "holds"), "void", "full: a", "a"),
        (("void", "differs"), "differs", "window: b", "b"),
        (("differs", "differs"), "differs", "full: a; window: b", "a"),
    ],
)
def test_of_two_kinds_of_layers_the_worse_counts(
    kinds: tuple[str, str], outcome: str, reason: str, details: str
) -> None:
    found = {"full": finding(kinds[0], "a"), "window": finding(kinds[1], "b")}
    whole = _worst(found)
    assert (whole.outcome, whole.reason) == (outcome, reason)
    layers = {"full": {"adder": "a"}, "window": {"adder": "b"}}
    assert whole.details is not None
    assert whole.details.document() == {"adder": details, "layers": layers}
    assert _worst({"full": found["full"]}) is found["full"]


@pytest.mark.parametrize(("right", "shown"), [(29, True), (30, False)])
def test_both_sides_of_a_field_are_shown_where_that_is_short(right: int, shown: bool) -> None:
    field = Field("loop", "a" * 30, "b" * right, "different")
    fields = (Field("same", "x", "x", "same"), field, replace(field, name="last"))
    pair = KernelComparison("prefill", "decode", "sm_90", fields)
    both = f" ({field.left} | {field.right})" if shown else ""
    assert _fields(pair) == f"loop{both}; last{both}"
