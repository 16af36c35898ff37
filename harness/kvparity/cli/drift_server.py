"""``kvparity drift`` against a running server, which scores the recorded tokens."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from kvparity.cli import progress
from kvparity.cli.stop import StopError

if TYPE_CHECKING:
    from kvparity.gaps.sides import MatchedSides

_OPTIONS = {"key_variable": "--key-variable", "timeout": "--timeout", "served": "--served"}


def path_or_url(text: str) -> Path | str:
    """A path; with ``://`` in it, an address, as it is."""
    return text if "://" in text else Path(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options, all absent by default."""
    group = parser.add_argument_group("a server that scores (with --against URL)")
    absent = argparse.SUPPRESS
    group.add_argument(
        "--key-variable",
        default=absent,
        metavar="NAME",
        help="environment variable with the server's key, which is neither printed nor kept",
    )
    group.add_argument(
        "--timeout",
        type=float,
        default=absent,
        metavar="S",
        help="seconds that one answer may take (default: 120)",
    )
    group.add_argument(
        "--served",
        default=absent,
        metavar="MODEL",
        help="name of the served model, where there are several",
    )


def refuse(args: argparse.Namespace) -> None:
    """Raise ``StopError`` if an option of a server is there."""
    given = [option for name, option in _OPTIONS.items() if hasattr(args, name)]
    if given:
        raise StopError(f"{', '.join(given)}: of a server; expected --against http://HOST:PORT")


def compare(args: argparse.Namespace) -> MatchedSides:
    """The recording with the server's logprobs.

    Raises:
        UnsupportedError: the address cannot be used.
        ServerError: the server does not answer as it must.
    """
    from kvparity.gaps.score import by_server
    from kvparity.servers.http import ServerAddress

    seconds = getattr(args, "timeout", 120.0)
    return by_server(
        args.rollouts,
        ServerAddress(args.against, getattr(args, "key_variable", None), seconds),
        served=getattr(args, "served", None),
        vocabulary=args.vocabulary,
        progress=progress.scored(),
    )
