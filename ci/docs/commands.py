"""The command line as tables, read from its own parser."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence

from kvparity.cli.main import parser
from kvparity.core.exit_codes import ExitCode


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars inside of cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def verbs() -> str:
    """The verbs, one a line, for the README."""

    def rows() -> Iterator[Sequence[str]]:
        for name, verb, help_text in _verbs(parser()):
            inner = [each for each, _, _ in _verbs(verb)]
            arguments = [*(["|".join(inner)] if inner else []), *_positionals(verb)]
            yield f"`{' '.join(['kvparity', name, *arguments])}`", help_text

    return table(["command", "what it does"], rows())


def commands() -> str:
    """Every verb with its arguments."""
    return "\n\n".join(_commands("kvparity", parser(), ""))


def _commands(name: str, command: argparse.ArgumentParser, told: str) -> Iterator[str]:
    inner = list(_verbs(command))
    if name == "kvparity" or not inner:
        usage = " ".join([name, *(["VERB"] if inner else _positionals(command))])
        about = (command.description or f"{told[:1].upper()}{told[1:]}.").replace("\n", " ")
        rows = list(_arguments(command))
        arguments = table(["argument", "meaning"], rows) if rows else ""
        yield "\n\n".join(part for part in (f"## `{usage}`", about, arguments) if part)
    for verb, sub, help_text in inner:
        yield from _commands(f"{name} {verb}", sub, help_text)


def _verbs(
    command: argparse.ArgumentParser,
) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            told = {each.dest: each.help or "" for each in action._choices_actions}
            for name, sub in action.choices.items():
                yield name, sub, told.get(name, "")


def _positionals(command: argparse.ArgumentParser) -> list[str]:
    return [
        _metavar(action) + ("..." if action.nargs in ("+", "*") else "")
        for action in command._actions
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction)
    ]


def _arguments(command: argparse.ArgumentParser) -> Iterator[Sequence[str]]:
    for action in command._actions:
        told = not isinstance(action, (argparse._SubParsersAction, argparse._HelpAction))
        if not told or action.help == argparse.SUPPRESS:
            continue
        value = "" if action.nargs == 0 or not action.option_strings else f" {_metavar(action)}"
        names = [f"`{each}{value}`" for each in action.option_strings] or [f"`{_metavar(action)}`"]
        yield ", ".join(names), _help(action)


def _help(action: argparse.Action) -> str:
    text = (action.help or "") % vars(action)
    return text.replace("<", "&lt;").replace("\n", " ")


def _metavar(action: argparse.Action) -> str:
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return str(action.metavar or action.dest.upper())


def exit_codes() -> str:
    """The exit codes with the words of their own docstring."""
    told = " ".join((ExitCode.__doc__ or "").split())

    def rows() -> Iterator[Sequence[str]]:
        for name, number, words in re.findall(r"``([A-Z]+)`` (\d+): (.*?)\.(?= |$)", told):
            if ExitCode[name] != int(number):
                raise SystemExit(f"the docstring of ExitCode gives {name} the number {number}")
            yield f"`{number}`", name.lower(), words

    return table(["exit code", "name", "meaning"], rows())
