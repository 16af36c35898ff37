"""``kvparity drift``: the files that it writes, and what they need before anything is computed."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from kvparity.cli import stop
from kvparity.core.exit_codes import ExitCode

if TYPE_CHECKING:
    from kvparity.drift.report import DriftReport
    from kvparity.drift.spelling import Spelling
    from kvparity.rollouts.tokens import Tokens


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write the report as one page to FILE"
    )
    parser.add_argument(
        "--tokens",
        type=Path,
        metavar="FILE",
        help="also write every compared token to a new Parquet FILE; needs kvparity[rollouts]",
    )
    parser.add_argument(
        "--plots",
        type=Path,
        metavar="DIR",
        help="also draw position, logprob, histogram and map.svg into DIR; needs kvparity[report]",
    )


def check(args: argparse.Namespace) -> None:
    """What is asked for can be made here.

    Raises:
        StopError: it cannot.
    """
    if args.plots is not None:
        stop.drawable(f"--plots {args.plots}")
    if args.tokens is not None:
        from kvparity.rollouts.parquet import MISSING

        try:
            import_module("pyarrow.parquet")
        except ImportError:
            raise stop.StopError(f"--tokens: {MISSING}", ExitCode.ERROR) from None
        if args.tokens.exists():
            raise stop.StopError(f"--tokens {args.tokens} exists; expected a new file")


def write(
    args: argparse.Namespace,
    found: DriftReport,
    tokens: Tokens,
    names: Mapping[str, Mapping[str, float]],
    spelling: Spelling | None,
) -> None:
    """All that is asked for.

    Raises:
        StopError: one cannot be written.
    """
    if args.html is not None:
        from kvparity.drift.page import page

        _write(f"--html {args.html}", args.html, page(found, tokens, names, spelling))
    if args.tokens is not None:
        from kvparity.rollouts.token_file import write_tokens

        write_tokens(tokens, args.tokens)
    if args.plots is not None:
        from kvparity.drift.pictures import pictures

        if not tokens.count:
            raise stop.StopError(f"--plots {args.plots}: no token is compared: nothing to draw")
        with stop.ends(OSError, words=f"--plots {args.plots} cannot be made: "):
            args.plots.mkdir(parents=True, exist_ok=True)
        for name, text in pictures(found, tokens):
            _write(f"--plots {args.plots / name}", args.plots / name, text)


def _write(option: str, path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise stop.StopError(f"{option} cannot be written: {error.strerror}") from error
