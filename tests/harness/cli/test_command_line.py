"""What makes a command line pleasant: guesses, colours, less words, tracebacks, completion."""

from __future__ import annotations

import io
import json
import re
import subprocess
from pathlib import Path

import pytest

from kvparity.cli import colour, doctor, progress, say
from kvparity.cli.main import main
from kvparity.core.errors import SubjectError
from kvparity.core.exit_codes import ExitCode

MEANT = {
    "a verb": (["verfy", "smoke"], "kvparity: error:", "verify"),
    "a verb of a verb": (["contract", "lnt"], "kvparity contract: error:", "lint"),
    "an option": (["verify", "smoke", "--jnuit", "x"], "kvparity verify: error:", "--junit"),
    "an option with a value": (["verify", "--jnuit=x"], "kvparity verify: error:", "--junit"),
    "an option of all": (["doctor", "--quite"], "kvparity doctor: error:", "--quiet"),
    "an option without a verb": (["--versoin"], "kvparity: error:", "--version"),
    "a choice": (["verify", "smoke", "--as", "sm90"], "kvparity verify: error:", "sm_90"),
    "a shell": (["completion", "bsh"], "kvparity completion: error:", "bash"),
    "nothing near": (["verify", "smoke", "--zzzzzz"], "kvparity verify: error:", None),
    "a word too many": (["verify", "smoke", "junit"], "kvparity verify: error:", None),
}


@pytest.mark.parametrize("kind", MEANT)
def test_what_was_meant_is_guessed(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, prefix, meant = MEANT[kind]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--json"])
    assert end.value.code == ExitCode.USAGE
    said = capsys.readouterr()
    last = said.err.splitlines()[-1]
    assert last.startswith(prefix)
    assert ("did you mean" in last) == (meant is not None)
    assert last.endswith(f"(did you mean {meant}?)" if meant else last)
    assert json.loads(said.out)["error"] == last.removeprefix(prefix).strip()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


STREAMS = {
    "a terminal": (Terminal(), {}, True),
    "no terminal": (io.StringIO(), {}, False),
    "NO_COLOR": (Terminal(), {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
    "an empty NO_COLOR": (Terminal(), {"NO_COLOR": ""}, True),
    "FORCE_COLOR": (io.StringIO(), {"FORCE_COLOR": "1"}, True),
    "a dumb terminal": (Terminal(), {"TERM": "dumb"}, False),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_colours_are_for_terminals(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, variables, coloured = STREAMS[kind]
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream.truncate(0)
    say.tell("smoke: HOLDS  (1 s)", file=stream)
    assert ("\x1b[" in stream.getvalue()) == coloured


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("smoke: HOLDS  (12 s)", "HOLDS"),
        ("[DIFFERS] decode: HOLDS", "DIFFERS"),
        ("[VOID]    a", "VOID"),
        ("    stale-slot   caught  bits differ", "caught"),
        ("    stale-slot   MISSED  holds", "MISSED"),
        ("c007: DIFFERS: bits differ", "DIFFERS"),
        ("NOT READY: no torch", "NOT READY"),
        ("kvparity verify: error: no", "error"),
        ("kvparity: error: no", "error"),
        ("x.yaml:3:4: warning: checks", "warning"),
        ("  first: a HOLDS", None),
        ("error: elsewhere", None),
        ("    decode   64 ok", None),
    ],
)
def test_the_words_that_decide_are_coloured(line: str, words: str | None) -> None:
    shown = colour.painted(line)
    assert re.sub(r"\x1b\[(1;3[123]|0)m", "", shown) == line
    assert re.findall(r"\x1b\[1;3[123]m([^\x1b]+)\x1b\[0m", shown) == ([words] if words else [])


def test_a_name_cannot_paint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    say.tell("\x1b[32mHOLDS", file=stream)
    assert "\x1b" not in stream.getvalue()


def test_json_has_no_colours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["verify", "smoke", "--jobs", "0", "--json"]) == ExitCode.USAGE
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "--jobs 0" in json.loads(said.out)["error"]
    assert main(["contract", "lint", "nothere.yaml"]) == ExitCode.USAGE
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("where", [0, 1])
def test_quiet_says_the_first_line_alone(
    where: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: object) -> int:
        progress.Progress(every=0)(1, 2, "a case")
        say.result(args, {"a": 1}, "x: HOLDS\nmore")  # type: ignore[arg-type]
        return 0

    monkeypatch.setattr(doctor, "run", run)
    assert main(["doctor"]) == 0
    said = capsys.readouterr()
    assert (said.out, "a case" in said.err) == ("x: HOLDS\nmore\n", True)
    arguments = ["doctor"]
    arguments.insert(where, "--quiet")
    assert main(arguments) == 0
    assert capsys.readouterr() == ("x: HOLDS\n", "")
    assert main(["doctor", "--json", "--quiet"]) == 0
    assert capsys.readouterr() == ('{"a": 1}\n', "x: HOLDS\n")


@pytest.mark.parametrize(
    ("error", "words"),
    [(SubjectError("no model"), "error: no model"), (RuntimeError("a bug"), "a bug")],
)
def test_a_traceback_is_shown_where_it_is_asked_for(
    error: Exception,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("KVPARITY_TRACEBACK", raising=False)

    def run(args: object) -> int:
        raise error

    monkeypatch.setattr(doctor, "run", run)
    for asked in (["--traceback"], []):
        assert main(["doctor", "--json", *asked]) == ExitCode.ERROR
        said = capsys.readouterr()
        assert ("Traceback" in said.err) == bool(asked)
        assert f"raise {'error'}" in said.err or not asked
        assert json.loads(said.out)["error"].endswith(words)
    monkeypatch.setenv("KVPARITY_TRACEBACK", "1")
    assert main(["doctor"]) == ExitCode.ERROR
    assert "Traceback" in capsys.readouterr().err


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    line = " ".join(words)
    asked = (
        f'source {script}; COMP_WORDS=({line} ""); COMP_CWORD=${{#COMP_WORDS[@]}};'
        f"COMP_CWORD=$((COMP_CWORD - {1 if words[-1].endswith(' ') else 2}));"
        '_shtab_kvparity; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", asked], capture_output=True, text=True, check=True,
        cwd=script.parent,
    )  # fmt: skip
    return done.stdout.split()


def test_bash_completes_verbs_options_choices_and_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "kvparity.bash"
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "minefolder").mkdir()
    assert main(["completion", "bash"]) == 0
    script.write_text(capsys.readouterr().out)
    assert completed(script, "kvparity", "ver") == ["verify"]
    assert "--junit" in completed(script, "kvparity", "verify", "--j")
    assert completed(script, "kvparity", "contract", "li") == ["lint", "list"]
    assert "mine.yaml" in completed(script, "kvparity", "verify", "min")
    assert completed(script, "kvparity", "verify", "x", "--run-dir", "min") == ["minefolder"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_the_same_names(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    for name in ("verify", "contract", "lint", "junit", "sm_100", "kvparity"):
        assert name in text, name
    assert ("#compdef kvparity" in text) == (shell == "zsh")
    assert ("complete -c kvparity" in text) == (shell == "fish")
