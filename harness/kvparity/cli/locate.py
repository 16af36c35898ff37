"""``kvparity locate``: the operations in which two paths of a run part."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kvparity.cli import say
from kvparity.cli.arguments import Verbs, add_current, add_device, add_json, since_words
from kvparity.cli.stop import StopError, drawable, ends
from kvparity.core.errors import RunFolderError
from kvparity.core.exit_codes import ExitCode
from kvparity.core.lock import held


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "locate",
        help="find the operations in which the two sides of a case diverge, and the cause",
        description="Run both sides of a case again, on the tokens of the run, compare what every "
        "operation gave each token, and find those that gave different bits for equal inputs "
        "(births). Then replace these rows, and nothing else, and see whether all compared rows "
        "are equal.",
        epilog="Exit codes: 0 the births account for the whole difference, 2 bad input, 3 the "
        "subject failed, 5 they do not, or nothing differs now.",
    )
    parser.add_argument("run_dir", type=Path, help="the folder of the run")
    parser.add_argument("case", help="the case's id, such as c007")
    parser.add_argument(
        "--svg",
        type=Path,
        metavar="FILE",
        help="draw operations by position (needs the extra report)",
    )
    parser.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="when to end the search for births; the report then says how much those found "
        "explain; default: no limit",
    )
    add_current(parser)
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Locate; returns the exit code."""
    if args.svg is not None:
        drawable(str(args.svg))
    from kvparity.api.locate import locate

    with ends(ValueError):
        found = locate(
            args.run_dir,
            args.case,
            device=args.device,
            current=args.current,
            budget=args.budget,
        )
    text = "\n".join([found.text(), *since_words(found.since)])
    try:
        with held(args.run_dir, "locate"):
            found.keep(args.run_dir)
    except RunFolderError as error:  # what was found is told, and evidence may be read-only
        say.tell(f"kvparity: a report of this run will not show it: {error}", file=sys.stderr)
    if args.svg is not None:
        from kvparity.births.picture import draw

        if found.map is None:
            raise StopError("--svg: a pair of kernels has no operations to draw")

        try:
            args.svg.write_text(draw(found.map), encoding="utf-8")
        except OSError as error:
            say.result(args, found.json(), text)  # what was found is not lost with its picture
            raise StopError(f"{args.svg} cannot be written: {error.strerror}") from error
        text += f"\nwritten: {args.svg}"
    say.result(args, found.json(), text)
    return ExitCode.HOLDS if found.complete else ExitCode.VOID
