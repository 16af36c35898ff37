"""Arguments that several verbs take in the same way."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, TypeAlias

from kvparity.run.device import VARIABLE, default
from kvparity.run.options import AUTO

if TYPE_CHECKING:
    from kvparity.run.kept import Since

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What a verb is added to."""


def add_contract(parser: argparse.ArgumentParser) -> None:
    """Add the contract."""
    parser.add_argument("contract", help="a contract file, or the name of a library contract")


def jobs(text: str) -> int | None:
    """How many processes: a number, or None for as many as fit.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    if text == AUTO:
        return None
    try:
        return int(text)
    except ValueError:
        words = f"found {text!r}, expected a number of processes, or {AUTO}"
        raise argparse.ArgumentTypeError(words) from None


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        default=default(),
        help="cpu (Triton's interpreter), cuda or cuda:N; default: "
        f"${VARIABLE}, else cuda where there is one, else cpu",
    )


def add_current(parser: argparse.ArgumentParser) -> None:
    """Add ``--current``."""
    parser.add_argument(
        "--current",
        action="store_true",
        help="run a pair's source files as they are now, where they were edited since the run; "
        "left out, the copies that the run kept",
    )


def since_words(since: Since) -> list[str]:
    """What is said of files of which the kept copy ran."""
    if not since.kept:
        return []
    has = "has" if len(since.kept) == 1 else "have"
    return [
        f"{', '.join(since.kept)} {has} changed since the run: what the run kept was run "
        "(--current runs what is there now)"
    ]
