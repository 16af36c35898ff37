"""``kvparity contract``, through its parser."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kvparity.cli import contract
from kvparity_contracts import library

BAD = "version: 1\nname: a\nnumbers: {}\n"
ROOTS = [str(Path(__file__).parents[2] / name) for name in ("harness", "contracts")]


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    contract.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["contract", *words])
    code: int = args.run(args)
    return code


def weak(folder: Path) -> Path:
    """A valid contract with a finding."""
    file = folder / "weak.yaml"
    text = (library.FOLDER / "smoke.yaml").read_text(encoding="utf-8")
    file.write_text(text.replace("1.0e-9", "1.0e-3"), encoding="utf-8")
    return file


def test_a_valid_contract(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("lint", "smoke", "--strict") == 0
    assert capsys.readouterr().out == f"{library.FOLDER / 'smoke.yaml'}: ok\n"


def test_warnings_are_printed_and_count_when_strict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(weak(tmp_path))
    assert run("lint", file) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{file}:")
    assert ": warning: checks[3].limits.float32.approx_kl0: cannot fail" in out
    assert run("lint", file, "--strict") == 2
    assert capsys.readouterr().out == out


def test_an_invalid_contract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(BAD, encoding="utf-8")
    assert run("lint", "smoke", str(file), "smok") == 2
    out, err = capsys.readouterr()
    assert f"{file}:3:1: numbers: found the unknown key" in out
    assert "(did you mean smoke?)" in out
    assert err == ""


def test_json_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(BAD, encoding="utf-8")
    assert run("lint", "--json", "smoke", str(weak(tmp_path)), str(bad)) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    good, warned, wrong = document["files"]
    assert (good["valid"], good["problems"], good["findings"]) == (True, [], [])
    assert (warned["valid"], len(warned["findings"])) == (True, 1)
    assert wrong["valid"] is False
    unknown = next(each for each in wrong["problems"] if each["key"] == "numbers")
    assert (unknown["line"], unknown["col"]) == (3, 1)
    assert unknown["suggestion"] == "numerics"


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("schema") == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Contract"


def test_the_library_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out] == library.names()
    assert all(len(line.split()) > 3 for line in out)


def test_a_verb_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run()
    assert caught.value.code == 2
    assert "VERB" in capsys.readouterr().err


@pytest.mark.parametrize(
    "code",
    [
        "from kvparity_contracts import *",
        "import argparse\n"
        "from kvparity.cli import contract\n"
        "parser = argparse.ArgumentParser()\n"
        "contract.add_parser(parser.add_subparsers())\n"
        "args = parser.parse_args(['contract', 'lint', 'smoke'])\n"
        "assert args.run(args) == 0",
    ],
    ids=["import", "lint"],
)
def test_neither_torch_nor_triton_is_imported(code: str) -> None:
    program = f"import sys\nsys.path[:0] = {ROOTS}\n{code}\nprint(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    modules = done.stdout.splitlines()[-1]
    assert "'kvparity_contracts.linter'" in modules
    heavy = ("torch", "triton", "numpy", "transformers", "kvparity_kernels")
    assert [name for name in heavy if f"'{name}'" in modules] == []
