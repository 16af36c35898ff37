"""Every mistake is told at its place, in words that help: the cases are in ``bad/*.txt``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bad_cases import GOOD, Bad, cases

from kvparity_contracts import ContractError, load

JARGON = re.compile(
    r"pydantic|ruamel|should be|validation|Traceback|tuple|dict\b|None|<class|"
    r"(?<!model)(?<!layer)_type"
)


@pytest.mark.parametrize("case", [pytest.param(each, id=each.name) for each in cases()])
def test_a_mistake_is_told_at_its_place(case: Bad, tmp_path: Path) -> None:
    before, mark, after = case.text.partition("§")
    assert mark, "the case marks no place"
    file = tmp_path / "c.yaml"
    file.write_text(before + after, encoding="utf-8")
    place = (before.count("\n") + 1, len(before) - before.rfind("\n"))

    with pytest.raises(ContractError) as caught:
        load(file)

    problems = caught.value.problems
    told = [each for each in problems if (each.line, each.col, each.key) == (*place, case.key)]
    assert told, f"{place} {case.key!r} is not told, but:\n{caught.value}"
    line = str(told[0])
    assert line.startswith(f"{file}:{place[0]}:{place[1]}: ")
    assert case.words in line
    assert len(problems) == 1, f"more than the one mistake:\n{caught.value}"
    assert not JARGON.search(line.removeprefix(str(file)))


def test_the_good_parts_are_good(tmp_path: Path) -> None:
    """Else every case above would be told for some other reason."""
    file = tmp_path / "c.yaml"
    file.write_text("".join(GOOD.values()), encoding="utf-8")
    assert load(file).contract.name == "good"


def told(file: Path) -> str:
    with pytest.raises(ContractError) as caught:
        load(file)
    return str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "none.yaml"
    assert told(file) == f"{file}:1:1: there is no such file, expected a contract file"


def test_a_number_with_a_unit_is_no_list(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("".join(GOOD.values()).replace("generate: 8", "generate: 8 tokens"))
    assert told(file).endswith("found '8 tokens', expected a whole number")


def test_a_folder(tmp_path: Path) -> None:
    assert told(tmp_path) == f"{tmp_path}:1:1: this is a folder, expected a contract file"


def test_a_path_that_no_system_takes() -> None:
    assert "cannot be read" in told(Path("a\0b.yaml"))


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(b"version: 1\nname: caf\xe9\n")
    message = "found the byte 0xe9, which is not UTF-8, expected UTF-8 text"
    assert told(file) == f"{file}:2:10: {message}"


def test_a_byte_order_mark_is_fine(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + "".join(GOOD.values()).encode())
    assert load(file).contract.name == "good"


def test_a_big_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(b"#" * 1_000_001)
    assert "found a file of 1000001 bytes, expected at most 1000000" in told(file)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("version: 1\n\tname: a\n", (2, 1), "expected spaces, not a tab"),
        ("name: \x07\n", (1, 7), r"found the character '\x07', expected text without control"),
        ("a: 1\nname: b\x1b\n", (2, 8), r"found the character '\x1b'"),
        ("name: a: b\n", (1, 8), "found a colon where no key is allowed, expected quotes around"),
        ("a: b\n  c: d\n", (2, 4), "or the line to begin in the column of its neighbours"),
        ("a:\n  b: 1\n c: 2\n", (3, 2), "found a line that begins in the wrong column"),
        ("a:\n  - b\n c: 2\n", (3, 2), "the items of one list, to begin in one column"),
        ("a: 1\n- b\n", (2, 1), "found a line that begins in the wrong column"),
        ("a: {b: 1 c: 2}\n", (1, 11), "found ':' inside brackets, expected a comma between"),
        (
            "a: [1, 2}\n",
            (1, 9),
            "found '}' inside brackets, expected a comma between the parts, and ']' at their end",
        ),
        ("b: 1\na: {b: 1\n", (2, 4), "found a bracket that is never closed"),
        ("b: 1\na: 'x\nc: 1\n", (2, 4), "found a quote that is never closed"),
        ("a: @x\n", (1, 4), "found '@' at the start of a word, expected quotes around text"),
        ("a: `x`\n", (1, 4), "found '`' at the start of a word"),
        ('a: "C:\\q"\n', (1, 8), "found a backslash before 'q', which means nothing"),
        ("a: >\n b\n  c\nd", (4, 2), "found a line that is no key or item"),
        ("a:1\nb:2\n", (1, 1), "and a space behind the colon of a key"),
        ("a: " + "[" * 5000, (1, 33), "nested deeper than 32 levels"),
    ],
)
def test_text_that_is_no_contract(
    tmp_path: Path, text: str, place: tuple[int, int], words: str
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text, encoding="utf-8")
    message = told(file)
    assert message.startswith(f"{file}:{place[0]}:{place[1]}: ")
    assert words in message
    assert "\n" not in message


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    bad = {**GOOD, "name": "name: A\n", "numerics": "numerics: {execution: x, tf32: no}\n"}
    file.write_text("".join(bad.values()) + "controls: [y]\nz: 1\n", encoding="utf-8")
    lines = told(file).splitlines()
    keys = [line.removeprefix(f"{file}:").split(": ")[1] for line in lines]
    assert keys == ["name", "numerics.execution", "numerics.tf32", "controls[0]", "z"]
