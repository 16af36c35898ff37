"""Every command and option that is written down exists, and every one that exists is written."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest
from pages import IDS, INLINE, PAGES, ROOT, fences, prose

from kvparity.cli.main import parser
from kvparity.core.versions import TESTED

COMMANDS = (ROOT / "docs" / "reference" / "commands.md").read_text()
OTHERS = {"--check", "--help", "--no-deps", "--upgrade", "--version"}
"""Options of other tools, and those that every parser has."""


def verbs(command: argparse.ArgumentParser, name: str = "kvparity") -> dict[str, set[str]]:
    """All verbs by full name, each with its options."""
    found = {name: {o for action in command._actions for o in action.option_strings}}
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, sub in action.choices.items():
                found |= verbs(sub, f"{name} {verb}")
    return found


VERBS = verbs(parser())
PROGRAMS = {
    name: set(re.findall(r'"(--[a-z-]+)"', (ROOT / "ci" / file).read_text())) | OTHERS
    for name, file in (("ci/gpu", "gpu_steps/run.py"), ("ci/mutants", "mutation/command.py"))
} | {"check-jsonschema": {"--schemafile"}}  # a program of others
OPTIONS = {option for options in (*VERBS.values(), *PROGRAMS.values()) for option in options}


def shown(text: str) -> list[str]:
    """The kvparity commands of a page that are complete: of console blocks and CI files."""
    found = [
        command
        for fence in fences(text)
        if fence.language == "console"
        for command, _ in fence.commands()
    ]
    found += re.findall(r"^ *-? *run: (.*)$", text, re.MULTILINE)
    return [command for command in found if command.startswith("kvparity ")]


def refused(command: str) -> str | None:
    """Why the parser refuses a command, or None."""
    words = shlex.split(command.split(" > ")[0], comments=True)
    try:
        parser().parse_args(words[1:])
    except SystemExit as end:
        return f"{command}: exit {end.code}"
    return None


def unknown(code: str) -> str | None:
    """What a piece of inline code names and the parser does not have, or None."""
    words, name = code.replace("\\|", "|").split(), ""
    if words[0] in ("python", "vllm", "pytest", "check-jsonschema"):
        return None  # a program with options of its own
    if words[0] == "kvparity" and len(words) > 1:
        name = "kvparity"
        for word in words[1:]:
            if f"{name} {word.split('|')[0]}" not in VERBS:
                break
            if any(f"{name} {each}" not in VERBS for each in word.split("|")):
                return f"{code}: no such verb"
            name = f"{name} {word.split('|')[0]}"
        if name == "kvparity" and not words[1].startswith("-") and words[1] != "VERB":
            return f"{code}: no such verb"
    known = VERBS[name] | OTHERS if name else PROGRAMS.get(words[0], OPTIONS)
    return next((f"{code}: {w}" for w in _options(words) if w not in known), None)


def _options(words: list[str]) -> list[str]:
    return [word.partition("=")[0].rstrip("]") for word in words if re.match(r"--[a-z]", word)]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_shown_commands_parse(page):
    assert [r for r in map(refused, shown(page.read_text())) if r] == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_named_verbs_and_options_exist(page):
    codes = INLINE.findall(prose(page.read_text()))
    assert [u for u in map(unknown, codes) if u] == []


@pytest.mark.parametrize(
    "bad", ["kvparity verfy smoke", "kvparity verify x --fast", "kvparity", "kvparity replay x"]
)
def test_a_command_that_does_not_parse_is_seen(bad, capsys):
    assert refused(bad)
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    "bad",
    [
        "kvparity verfy",
        "kvparity verify --strict",
        "ci/gpu --strict",
        "ci/mutants --strict",
        "--allow-void",
        "kvparity contract lint\\|shw",
    ],
)
def test_a_name_that_does_not_exist_is_seen(bad):
    assert unknown(bad)


def test_the_reference_has_every_verb_and_option():
    parts = re.split(r"^## `(.*)`$", COMMANDS, flags=re.MULTILINE)
    told = {}
    for usage, text in zip(parts[1::2], parts[2::2], strict=True):
        name = " ".join(word for word in usage.split() if word.islower() and word.isalpha())
        rows = "\n".join(line for line in text.splitlines() if line.startswith("| `-"))
        told[name] = set(re.findall(r"`(--?[a-z][a-z-]*)", rows.replace("` |", "` ")))
    leaves = {name for name in VERBS if not any(o.startswith(f"{name} ") for o in VERBS)}
    assert set(told) == leaves | {"kvparity"}
    everywhere = {"-h", "--help", "--quiet", "--traceback"}
    for name, options in told.items():
        assert options - everywhere == VERBS[name] - everywhere, name
        assert options & everywhere == ({"--quiet", "--traceback"} if name == "kvparity" else set())


def test_the_readme_has_every_verb():
    text = (ROOT / "README.md").read_text()
    table = re.findall(r"^\| `kvparity ([a-z]+)", text, re.MULTILINE)
    assert table == [name.split()[1] for name in VERBS if len(name.split()) == 2]


def test_the_readme_has_the_tested_versions():
    text = (ROOT / "README.md").read_text().lower()
    for library in ("python", "torch", "triton", "transformers"):
        assert f"{library} {TESTED[library]}" in text


def test_every_environment_variable_is_told():
    folders = [ROOT / name for name in ("harness", "kernels", "contracts", "ci")]
    files = [f for folder in folders for f in folder.rglob("*") if _is_text(f)]
    used = {name for file in files for name in re.findall(r"KVPARITY_[A-Z_]+", file.read_text())}
    told = set(re.findall(r"`(KVPARITY_[A-Z_]+)`", COMMANDS))
    assert told == used


def _is_text(file: Path) -> bool:
    return file.is_file() and (file.suffix in (".py", ".sh") or _is_script(file))


def _is_script(file: Path) -> bool:
    return file.parent == ROOT / "ci" and not file.suffix
