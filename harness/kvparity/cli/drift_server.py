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
    from kvparity.core import doing
    from kvparity.gaps.report import Source
    from kvparity.gaps.sides import ServerScorer, with_scorer
    from kvparity.servers.connect import connect
    from kvparity.servers.http import ServerAddress

    seconds = getattr(args, "timeout", 120.0)
    at = ServerAddress(args.against, getattr(args, "key_variable", None), seconds)
    doing.task("asking the server what it is")
    server = connect(at, model=getattr(args, "served", None))
    doing.task(f"scoring by {server.facts.words()}")
    shown = progress.Progress()

    def tell(done: int) -> None:
        shown(done, 0, f"{done} sequences scored ({server.facts.words()})")

    scorer = ServerScorer(server, args.vocabulary)
    trainer = Source(args.against, server.facts.words())
    return with_scorer(args.rollouts, scorer, trainer, server.anomalies, tell)
