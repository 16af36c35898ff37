"""Texts go through the checkpoint's tokenizer and chat template, or byte by byte without one."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import toy
from run_documents import rendered
from tokenizers import Tokenizer, models, pre_tokenizers
from toy import Toy
from transformers import PreTrainedTokenizerFast

from kvparity.plan.texts import BYTES, TokenisedContract, given
from kvparity.report.run_dir import RunFolderError
from kvparity.run import verify as verification
from kvparity.run import worker
from kvparity.run.identity import subject_files
from kvparity.run.kept import Since, as_in, contract_of, keep, since_then
from kvparity.run.replay import replay
from kvparity.subjects.base import UnsupportedError
from kvparity_contracts.loader import LoadedContract, load

WORDS = ["[UNK]", "<user>", "<model>", "how", "now", "brown", "cow"]
TEMPLATE = "<user> {{ messages[0]['content'] }} {% if add_generation_prompt %}<model>{% endif %}"
TEXTS = ["how now", "brown cow how now cow"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint folder with a tokenizer of seven words, and nothing else that is looked at."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    there = tmp_path / "model"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(there)
    (there / "config.json").write_text('{"model_type": "llama"}')
    return there


def contract(folder: Path, texts: list[str] = TEXTS, **subject: Any) -> LoadedContract:
    whole = toy.document(
        subject={"kind": "transformers", "attention": "eager", "checkpoint": "model"} | subject,
        workloads=[
            {"name": "chat", "texts": texts, "generate": 4},
            {"name": "given", "prompts": [[1, 2, 3]], "generate": 3},
        ],
        checks=[{"name": "bits", "relation": "invariance", "paths": ["decode"]}],
    )
    file = folder.parent / "contract.yaml"
    file.write_text(json.dumps(whole))
    return load(file)


def ids(found: TokenisedContract, name: str = "chat") -> Any:
    return next(each.prompts for each in found.loaded.contract.workloads if each.name == name)


def chatting(folder: Path, template: str = TEMPLATE) -> None:
    (folder / "chat_template.jinja").write_text(template)


def test_the_tokenizer_of_the_checkpoint_makes_the_ids(folder: Path) -> None:
    found = given(contract(folder))
    assert ids(found) == ((3, 4), (5, 6, 3, 4, 6))
    assert found.by is not None
    assert found.by.endswith("which has no chat template")
    assert found.by.startswith("the checkpoint's ")
    assert found.json() == {"by": found.by, "ids": {"chat": [[3, 4], [5, 6, 3, 4, 6]]}}
    assert ids(found, "given") == ((1, 2, 3),)
    # What is planned follows ids, not bytes.
    assert found.loaded.contract.workloads[0].lengths() == (2, 5)


def test_a_chat_template_says_who_speaks(folder: Path) -> None:
    chatting(folder)
    found = given(contract(folder))
    assert ids(found) == ((1, 3, 4, 2), (1, 5, 6, 3, 4, 6, 2))
    assert found.by is not None
    assert found.by.endswith("and its chat template")


ROLES = (
    "{% for m in messages %}{{ '<' + m['role'] + '> ' + m['content'] + ' ' }}{% endfor %}<model>"
)
CHAT = [{"role": "user", "content": "how now"}, {"role": "model", "content": "cow"}]


def write_identity(run: Path, loaded: LoadedContract) -> None:
    about = {"path": str(loaded.path), "contract": loaded.sha256}
    files = {"subject_files": subject_files(loaded)}
    (run / "identity.json").write_text(json.dumps(about | files))


def of_a_file(folder: Path, text: str) -> LoadedContract:
    file = folder.parent / "contract.yaml"
    document = json.loads(contract(folder).path.read_text())
    document["workloads"][0] = {"name": "chat", "prompts": {"file": "p.jsonl"}, "generate": 4}
    (folder.parent / "p.jsonl").write_text(text)
    file.write_text(json.dumps(document))
    return load(file)


def test_a_chat_of_a_file_keeps_its_roles(folder: Path) -> None:
    chatting(folder, ROLES)
    loaded = of_a_file(folder, json.dumps({"messages": CHAT}))
    assert ids(given(loaded)) == ((1, 3, 4, 2, 6, 2),)
    file = folder.parent / "p.jsonl"
    assert set(subject_files(loaded)) > {str(file)}
    before = subject_files(loaded)[str(file)]
    run = folder.parent / "run"
    run.mkdir()
    keep(run, loaded)
    write_identity(run, loaded)
    file.write_text('"other"')
    assert subject_files(loaded)[str(file)] != before
    for change in (lambda: None, file.unlink):  # edited, and gone
        change()
        then = contract_of(run)
        assert ids(given(then)) == ((1, 3, 4, 2, 6, 2),)
        for current in (False, True):  # prompts are part of the contract
            with as_in(run, then, current=current) as since:
                assert since == since_then(run, then) == Since((), ("p.jsonl",))


@pytest.mark.parametrize(
    ("lost", "words"),
    [("chat_template*", "has no chat template, which chats need"), ("tokenizer*", "has none")],
)
def test_a_chat_is_not_read_otherwise(folder: Path, lost: str, words: str) -> None:
    chatting(folder, ROLES)
    for file in folder.glob(lost):
        file.unlink()
    with pytest.raises(UnsupportedError, match=words):
        given(of_a_file(folder, json.dumps(CHAT)))


@pytest.mark.parametrize("kind", ["transformers", "decoder"])
def test_bytes_only_without_a_tokenizer(folder: Path, kind: str) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    chatting(folder)  # of no use alone
    loaded = contract(folder, kind=kind) if kind == "transformers" else _decoder(folder)
    found = given(loaded)
    assert found.by == BYTES
    assert found.ids["chat"][0] == tuple(b"how now")
    assert found.loaded is loaded


def test_a_decoder_reads_texts_as_its_checkpoint_does(folder: Path) -> None:
    assert ids(given(_decoder(folder))) == ((3, 4), (5, 6, 3, 4, 6))


def _decoder(folder: Path) -> LoadedContract:
    loaded = contract(folder)
    data = json.loads(loaded.path.read_text())
    data["subject"] = {"kind": "decoder", "checkpoint": "model"}
    loaded.path.write_text(json.dumps(data))
    return load(loaded.path)


def _broken(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def _own_code(folder: Path) -> None:
    settings = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "mine.py").write_text("raise SystemExit('this must never run')")
    (folder / "config.json").write_text('{"model_type": "mine"}')
    (folder / "tokenizer.json").unlink()


def _bad_template(folder: Path) -> None:
    chatting(folder, "{{ raise_exception('only system speaks') }}")


def _mute_template(folder: Path) -> None:
    chatting(folder, "{# nothing #}")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_broken, "cannot be loaded: "),
        (_own_code, "cannot be loaded: "),
        (_bad_template, "refuses a text in its chat template: TemplateError: only system speaks"),
        (_mute_template, "workload chat: the tokenizer makes no id of text 0"),
    ],
)
def test_a_tokenizer_that_does_not_work_is_no_reason_for_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, damage: Any, words: str
) -> None:
    def no_network(*args: Any) -> Any:
        raise AssertionError("a network attempt")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    damage(folder)
    with pytest.raises(UnsupportedError, match=words):
        given(contract(folder))


def verify(folder: Path, monkeypatch: pytest.MonkeyPatch, *, resume: bool = False) -> Any:
    monkeypatch.setattr(worker, "factory", lambda kind: lambda model, **options: Toy())
    monkeypatch.setattr(worker, "_subjects", {})
    return verification.verify(
        contract(folder),
        device="cpu",
        folder=folder.parent / "run",
        jobs=1,
        resume=resume,
        command="kvparity verify contract.yaml",
        progress=lambda done, total, what: None,
    ).document()


def test_a_report_says_which_ids_a_text_became_and_only_the_same_are_resumed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = verify(folder, monkeypatch)
    assert report["texts"]["ids"] == {"chat": [[3, 4], [5, 6, 3, 4, 6]]}
    line = next(x for x in rendered(report).splitlines() if "texts became ids" in x)
    assert "7 of chat" in line
    assert "which has no chat template" in line
    kept = (folder.parent / "run" / "units.jsonl").read_text().splitlines()
    unit = next(each for each in map(json.loads, kept) if each["unit"].startswith("chat"))
    assert [s["ids"][: s["prompt"]] for s in unit["sequences"]] == [[3, 4], [5, 6, 3, 4, 6]]
    chatting(folder)
    with pytest.raises(RunFolderError):
        verify(folder, monkeypatch, resume=True)


def test_without_texts_nothing_is_said(folder: Path) -> None:
    loaded = contract(folder)
    data = json.loads(loaded.path.read_text())
    data["workloads"] = [{"name": "given", "prompts": [[1, 2, 3]], "generate": 3}]
    loaded.path.write_text(json.dumps(data))
    found = given(load(loaded.path))
    assert (found.by, found.json(), found.identity()) == (None, None, {})


def test_a_replay_takes_no_other_ids_than_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify(folder, monkeypatch)
    loaded, there = contract(folder), folder.parent / "run"
    assert replay(loaded, there, "c000", "cpu").same
    chatting(folder)
    with pytest.raises(RunFolderError, match=r"are different ids now than in .*/run"):
        replay(loaded, there, "c000", "cpu")


def test_a_report_shows_what_is_not_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = verify(folder, monkeypatch)
    noted = {**report, "subject": {**report["subject"], "notes": ["generation_config is not"]}}
    assert "  generation_config is not" in rendered(noted).splitlines()
    assert "  generation_config is not" not in rendered(report).splitlines()
