"""``kvparity sweep``: a matrix of verifications."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from kvparity.cli import ray_option, say
from kvparity.cli.arguments import Verbs, add_json
from kvparity.cli.progress import Progress
from kvparity.cli.stop import StopError, ends
from kvparity.core.exit_codes import ExitCode, of_verdict
from kvparity.run.options import sound

SWEEPS = Path(".kvparity/sweeps")
_TIMEOUT_S = 3600


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "sweep",
        help="verify contracts × devices × formats × versions × seeds, each in its environment",
        description="Verify every cell of a sweep in a process of its own, and keep the results in "
        "a store (extra history). What really ran is read from the evidence: a cell that ran with "
        "other versions, on another device or in another format than asked for is void.",
        epilog="Exit codes: that of the worst cell: 0 holds, 1 differs, 3 error, 5 void, also "
        "where cells are left; 2 bad input, 130 interrupted.",
    )
    parser.add_argument("sweep", type=Path, help="a sweep file")
    parser.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help=f"where results are kept (default: {SWEEPS}/<name>)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="run what is left; cells that ended are not run again"
    )
    parser.add_argument(
        "--list", action="store_true", help="list the cells in their order, and run none"
    )
    parser.add_argument(
        "--budget",
        type=float,
        metavar="MINUTES",
        help="stop after so many minutes, in place of the sweep's budget_minutes",
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="as kvparity verify takes it")
    parser.add_argument(
        "--timeout",
        type=float,
        default=_TIMEOUT_S,
        metavar="SECONDS",
        help=f"as kvparity verify takes it (default: {_TIMEOUT_S})",
    )
    ray_option.add_arguments(
        parser, "a cell takes --jobs CPUs (default: 1), and one GPU where its device is cuda"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Sweep; returns the exit code of the worst cell."""
    from kvparity.sweeps.carry_out import SweepWork
    from kvparity.sweeps.planned import planned
    from kvparity.sweeps.process import CellSettings
    from kvparity.sweeps.store import SweepStore, needed
    from kvparity.sweeps.text import document, listed, render
    from kvparity_contracts.sweep_file import load_sweep

    with ends(ValueError, words="--"):
        sound(args.jobs, args.timeout)
        ray_option.sound_of_sweep(args)
    if args.budget is not None and not 0 < args.budget <= 100_000:
        raise StopError(f"--budget {args.budget:g}: expected minutes, more than 0")
    loaded = load_sweep(args.sweep)
    store = SweepStore(args.store or SWEEPS / loaded.sweep.name)
    cells = planned(loaded)
    if args.list:
        say.result(args, *listed(cells, store), beside=False)
        return ExitCode.HOLDS
    needed()
    minutes = args.budget or loaded.sweep.budget_minutes
    with store.alone():
        before = [each for each in cells if store.ended(each.id)]
        if before and not args.resume:
            raise StopError(
                f"{store.folder} holds {len(before)} of these {len(cells)} cells; add --resume to "
                "run what is left, or give another --store"
            )
        try:
            with ray_option.sweeping(args) as carry_out, Progress(of="cells") as bar:
                settings = CellSettings(args.jobs, args.timeout)
                budget_s = None if minutes is None else minutes * 60
                found = carry_out(SweepWork(cells, store, settings, budget_s, bar))
        except KeyboardInterrupt:
            count = sum(store.ended(each.id) for each in cells)
            again = shlex.join(["kvparity", *sys.argv[1:], *["--resume"] * (not args.resume)])
            words = f"interrupted; {count} of {len(cells)} cells are kept in {store.folder}"
            raise StopError(f"{words}; finish with: {again}", ExitCode.INTERRUPTED) from None
    say.result(args, document(found, store), render(found, store))
    return of_verdict(found.verdict)
