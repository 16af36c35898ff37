"""The text of tokens: what a tokenizer says of ids, shown so that nothing in it acts or hides."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from gaps import tiny
from rollouts.recorded import LAYOUTS, written
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kvparity.cli.main import main
from kvparity.core.errors import UnsupportedError
from kvparity.gaps.report import token
from kvparity.gaps.spelling import Spelling, line
from kvparity.gaps.token import Token
from kvparity.rollouts.tokens import ScoredSequence, Tokens

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
WORDS = ["<unk>", "▁how", "▁now", "<end>", "▁<b>", "é", "\u202e", "\\"]


def _saved(model: models.Model, decoder: decoders.Decoder, folder: Path) -> Path:
    made = Tokenizer(model)
    made.decoder = decoder
    PreTrainedTokenizerFast(tokenizer_object=made).save_pretrained(folder)
    return folder


def _bytes(folder: Path) -> Path:
    """Each byte is a token; ids are their places in ``BYTES``."""
    vocabulary = {each: number for number, each in enumerate(BYTES)}
    return _saved(models.BPE(vocabulary, []), decoders.ByteLevel(), folder)


def _words(folder: Path) -> Path:
    """Pieces of words, whose decoder drops the space that a text begins with."""
    vocabulary = {each: number for number, each in enumerate(WORDS)}
    return _saved(models.WordLevel(vocabulary, "<unk>"), decoders.Metaspace(), folder)


def _token(*ids: int, at: int = 1) -> Token:
    zeros = np.zeros(len(ids), dtype=np.float32)
    places = np.arange(len(ids), dtype=np.int32)
    made = ScoredSequence("0", zeros, zeros, places, np.array(ids, dtype=np.int32))
    return token(Tokens.of([made]), at)


@pytest.mark.parametrize(
    ("ids", "shown"),
    [
        ((1, 2, 3), " how« now»<end>"),
        ((1, 4, 1), " how« <b>» how"),
        ((5, 6, 7), r"é«\u202e»\\"),
        ((99, -1, 1), "<99>«<-1>» how"),
    ],
)
def test_pieces_of_words(ids: tuple[int, ...], shown: str, tmp_path: Path) -> None:
    assert line(Spelling(_words(tmp_path)).of(_token(*ids))) == shown


def test_bytes(tmp_path: Path) -> None:
    """Control characters are seen; half a character is what the tokenizer calls it."""
    half, newline, escape, letter = (BYTES.index(each) for each in ("Ã", "Ċ", "ě", "a"))
    found = Spelling(_bytes(tmp_path)).of(_token(letter, newline, escape, half))
    assert found.text is not None
    assert (found.text.before, found.text.token) == (("a",), "\n")
    assert found.text.after == ("\x1b", "Ã")
    assert line(found) == r"a«\n»\x1bÃ"
    assert line(_token(letter, newline)) == "", "without a tokenizer"


@pytest.mark.parametrize("at", [0, 3, 6])
@pytest.mark.parametrize("most", [5, 6, 9, 16, 40])
def test_a_line_is_cut_around_its_token(at: int, most: int, tmp_path: Path) -> None:
    found = Spelling(_words(tmp_path)).of(_token(1, 2, 1, 2, 1, 2, 1, at=at))
    text, whole = line(found, most), line(found)
    assert len(text) <= most
    assert text.count("«") == text.count("»") == 1
    assert (text == whole) == (len(whole) <= most)


def test_the_command_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = str(written(LAYOUTS["slime train shard"](), tmp_path / "shard.json"))
    page, words = tmp_path / "page.html", str(_words(tmp_path / "words"))
    assert main(["drift", shard]) == 1
    assert "  text" not in capsys.readouterr().out
    command = ["drift", shard, "--tokenizer", words]
    assert main([*command, "--html", str(page)]) == 1
    out = capsys.readouterr().out
    assert "d  text" in out
    assert "«" in out
    (data,) = re.findall(r'<script id="data"[^>]*>(.*?)</script>', page.read_text(), re.DOTALL)
    shown = json.loads(data)
    assert all("«" in each["text"] for each in (*shown["worst"], *shown["map"]["tokens"]))
    assert main([*command, "--json"]) == 1
    worst = json.loads(capsys.readouterr().out)["worst"][0]
    texts = [worst["text"]["token"], *worst["text"]["before"], *worst["text"]["after"]]
    ids = [worst["token_id"], *worst["before"], *worst["after"]]
    known = {n: each.replace("▁", " ") for n, each in enumerate(WORDS)}
    assert texts == [known.get(each) for each in ids]


def test_a_folder_without_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = str(written(LAYOUTS["slime train shard"](), tmp_path / "shard.json"))
    for folder in (tmp_path, tmp_path / "no"):
        assert main(["drift", shard, "--tokenizer", str(folder)]) == 2
        err = capsys.readouterr().err.strip()
        assert err.startswith(f"kvparity: {folder} has no tokenizer; expected a folder with one of")
        assert len(err.splitlines()) == 1
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UnsupportedError, match=r"cannot be loaded: .*; name another by --tok"):
        Spelling(tmp_path)


def test_that_of_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is taken where it is; one that cannot be read is told, and ids are shown."""
    folder = tiny.checkpoint(tmp_path / "model")
    recorded = str(tiny.rollout(folder, folder / "rollout.jsonl"))
    command = ["drift", recorded, "--against", str(folder), "--dtype", "float32"]
    assert main(command) == 1
    assert "d  text" not in capsys.readouterr().out
    _bytes(folder)
    assert main(command) == 1
    assert "d  text" in capsys.readouterr().out
    (folder / "tokenizer.json").write_text("{")
    assert main(command) == 1
    found = capsys.readouterr()
    assert "d  text" not in found.out
    assert "kvparity: no text of tokens: the tokenizer of" in found.err
