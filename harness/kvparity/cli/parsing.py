"""The parser of every verb: what argparse does, with a guess at what was meant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from kvparity.cli import say
from kvparity.core.exit_codes import ExitCode

_REQUIRED = "the following arguments are required"
QUIET = "say less: of a report its first line alone, and no progress"
TRACEBACK = "where a command fails, show the Python traceback, too"


class Misused(SystemExit):
    """A command line that means nothing: exit code 2, and why."""

    def __init__(self, words: str) -> None:
        super().__init__(int(ExitCode.USAGE))
        self.words = words


class TopParser(argparse.ArgumentParser):
    """``kvparity``; its options may stand behind the verb, too (:class:`VerbParser`)."""

    everywhere = True
    """Whether the help lists the options that every verb takes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name, told in (("--quiet", QUIET), ("--traceback", TRACEBACK)):
            shown = told if self.everywhere else argparse.SUPPRESS
            self.add_argument(name, action="store_true", default=argparse.SUPPRESS, help=shown)

    def error(self, message: str) -> NoReturn:
        """End with the usage, the message and exit code 2."""
        if message.startswith(
            _REQUIRED
        ):  # a word that argparse did not know may be what is missing
            message += self._unknown(self._given)
        self.print_usage(sys.stderr)
        say.tell(f"{self.prog}: error: {message}", file=sys.stderr)
        raise Misused(message)

    def parse_known_args(  # type: ignore[override]  # typeshed has a type for each call
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse; what a verb does not know ends here, where its options are known."""
        self._given = list(sys.argv[1:] if args is None else args)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._unknown(unknown)}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += _meant(str(value), map(str, action.choices or ()))
            raise

    def _unknown(self, words: Sequence[str]) -> str:
        """What the first option that is none was probably meant to be."""
        known = [name for action in self._actions for name in action.option_strings]
        options = (each.partition("=")[0] for each in words if each.startswith("--"))
        return _meant(next((each for each in options if each not in known), ""), known)


class VerbParser(TopParser):
    """One verb."""

    everywhere = False


def _meant(word: str, options: Iterable[str]) -> str:
    from kvparity_contracts.base import closest  # takes its time: see main

    near = closest(word, options) if word else ""
    return f" (did you mean {near}?)" if near else ""
