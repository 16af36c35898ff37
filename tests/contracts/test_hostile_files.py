"""What is no contract is refused with one message, and is read no further than a contract goes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from kvparity_contracts import ContractError, find, load
from kvparity_contracts.loader import MOST_PROBLEMS
from kvparity_contracts.paths import MOST, PathError, PathName
from kvparity_contracts.problems import Problem


def problems(file: Path) -> tuple[Problem, ...]:
    with pytest.raises(ContractError) as caught:
        load(file)
    for each in caught.value.problems:
        assert str(each).isprintable()
        assert len(str(each)) < 3000
    return caught.value.problems


def only(file: Path) -> str:
    (problem,) = problems(file)
    return str(problem).removeprefix(f"{file}:")


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "c.yaml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    return file


def test_what_has_no_end_is_not_read(tmp_path: Path) -> None:
    assert only(Path("/dev/zero")) == "1:1: this is a device, expected a contract file"
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: reading would wait for ever
    assert only(tmp_path / "pipe") == "1:1: this is a pipe, expected a contract file"
    # A socket cannot be opened at all.
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)
        try:
            server.bind("s")
        finally:
            os.chdir(here)
        assert "cannot be read" in only(tmp_path / "s")


def test_a_file_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(10**9)
    message = "1:1: found a file of 1000000000 bytes, expected at most 1000000"
    assert only(tmp_path / "big") == message


def test_a_file_that_says_it_is_empty_is_read_to_the_bound() -> None:
    # Files of /proc have a size of 0, and bytes all the same.
    assert all("bytes" not in str(each) for each in problems(Path("/proc/self/status")))


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("".join(f"k{i}: 1\n" for i in range(60_000)), (2001, 1), "found more than 2000 keys"),
        (
            "a:\n" + "".join(f"- {{k: {i}, l: [{i}]}}\n" for i in range(30_000)),
            (1001, 12),
            "found more than 2000 keys, expected a contract, which has some dozens",
        ),
        ("a: " + "[" * 20_000, (1, 33), "nested deeper than 32 levels"),
        ("\n".join(" " * i + "a:" for i in range(900)), (31, 31), "nested deeper than 32 levels"),
        ("name: a\0b\n", (1, 8), r"found the character '\x00', expected text without control"),
    ],
    ids=["keys", "keys in a list", "brackets", "blocks", "NUL"],
)
def test_more_than_any_contract_has_is_one_message(
    tmp_path: Path, text: str, place: tuple[int, int], words: str
) -> None:
    (problem,) = problems(written(tmp_path, text))
    assert (problem.line, problem.col) == place
    assert words in str(problem)


def test_a_bomb_of_aliases_is_not_unfolded(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]" for i in range(1, 40)]
    found = problems(written(tmp_path, "\n".join(lines)))
    assert len(found) <= 10
    assert "found the alias '*a0', expected the value itself, written out" in str(found[0])


def test_long_words_are_cut(tmp_path: Path) -> None:
    long = "9" * 50_000
    for text in (
        f"version: {long}\n", f"version: 1.{long}e5\n", f"{long}: 1\n", f"version: !!{long} 1\n",
        f"name: '{long}'\n", f"{long}: 1\n{long}: 2\n", f"controls: [a{long}]\n",
    ):  # fmt: skip
        assert problems(written(tmp_path, text))  # each of them is short


def test_many_problems_are_counted(tmp_path: Path) -> None:
    text = find("smoke").read_text(encoding="utf-8")
    text += "".join(f"unknown{i}: 1\n" for i in range(1000))
    found = problems(written(tmp_path, text))
    assert len(found) == MOST_PROBLEMS + 1
    assert found[-1].message == f"{1000 - MOST_PROBLEMS} more problems"
    assert found[-1].line == found[-2].line + 1


def test_escape_sequences_do_not_reach_the_terminal(tmp_path: Path) -> None:
    for text in ('"\\e]0;t\\a": 1\n', 'name: "\\e[2J"\n', 'name: "a\\u202eb"\n'):
        assert problems(written(tmp_path, text))  # every one is printable


@pytest.mark.parametrize("n", ["0", "-1", str(MOST + 1), "9" * 6000, "1.5", "", "n", "0x10"])
def test_an_argument_out_of_range_is_told_the_range(n: str) -> None:
    with pytest.raises(PathError) as caught:
        PathName.parse(f"chunked({n})")
    assert caught.value.expected == f"a whole number from 1 to {MOST} in the brackets"
    assert len(caught.value.message) < 100
    assert PathName.parse(caught.value.suggestion).kind == "chunked"


def test_the_largest_argument_is_one() -> None:
    assert PathName.parse(f"paged({MOST})").argument == MOST
