"""``kvparity shrink``: the smallest case that fails as a case of a run does."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvparity.cli import say
from kvparity.cli.arguments import Verbs, add_device, add_json
from kvparity.cli.progress import Progress
from kvparity.cli.stop import StopError, ends
from kvparity.core.exit_codes import ExitCode
from kvparity.run.device import settle
from kvparity.run.options import SHRINK_S, seconds


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "shrink",
        help="find the smallest case that fails as a case of a run does",
        description="Take away sequences, tokens, steps, heads and layers from a case that "
        "differs, for as long as it fails in the same way, and print what is left as a contract, "
        "beside the nearest case that passes. What was tried is kept in the run folder: the same "
        "command goes on where it ended.",
        epilog="Exit codes: 0 no case with one thing less fails in the same way, and one passes, "
        "2 bad input, 3 the subject failed, 5 the budget ended, none passes, or nothing differs "
        "now, 130 interrupted.",
    )
    parser.add_argument("run_dir", type=Path, help="the folder of the run")
    parser.add_argument("case", help="the id of a case that differs, such as c007")
    parser.add_argument(
        "--budget",
        type=float,
        default=SHRINK_S,
        metavar="SECONDS",
        help=f"how long to search; a case that runs then is finished; default: {SHRINK_S:g}",
    )
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Shrink; returns the exit code."""
    with ends(ValueError):
        seconds("budget", args.budget)
        device = settle(args.device)
    from kvparity.run.kept import contract_of
    from kvparity.run.shrink import shrink

    try:
        with ends(ValueError), Progress() as bar:
            found = shrink(
                contract_of(args.run_dir),
                args.run_dir,
                args.case,
                device,
                budget=args.budget,
                progress=lambda tried, words: bar(tried, 0, words),
            )
    except KeyboardInterrupt:
        words = "interrupted; what was tried is kept: the same command goes on there"
        raise StopError(words, ExitCode.INTERRUPTED) from None
    say.result(args, found.json(), found.text())
    return ExitCode.HOLDS if found.complete else ExitCode.VOID
