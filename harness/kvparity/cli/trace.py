"""``kvparity trace``: what every layer looked at, step by step."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from kvparity.cli import say
from kvparity.cli.arguments import Verbs, add_contract, add_device, add_json
from kvparity.cli.stop import StopError, drawable, ends
from kvparity.core.exit_codes import of_verdict
from kvparity.run.device import settle

if TYPE_CHECKING:
    from kvparity.run.trace_command import Traced


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "trace",
        help="record what every layer attends to, and check positions, keys, weights, donors",
        description="Run one path of a contract's workload and write down, for each compared row "
        "and layer: the position computed and the one passed to the model, the cache's length, the "
        "keys attended, the layer whose cache they came from, the sum and the entropy of the "
        "weights, and the result against float64. Rows are checked against invariants; the first "
        "violation is reported first.",
        epilog="Exit codes: 0 all invariants hold, 1 one is broken, 2 bad input, 3 the subject "
        "failed, 5 void (the subject reported no row, or not all).",
    )
    add_contract(parser)
    parser.add_argument(
        "--workload", metavar="NAME", help="the workload to run (default: the contract's first)"
    )
    parser.add_argument(
        "--path", metavar="PATH", default="decode", help="how it is run (default: decode)"
    )
    parser.add_argument(
        "--sequence", type=int, metavar="N", help="show only sequence N, counted from 0"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write trace.jsonl and trace.svg into DIR (needs the extra report)",
    )
    add_json(parser)
    add_device(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trace; returns the exit code."""
    from kvparity_contracts.files import load_whole
    from kvparity_contracts.library import find

    if args.out is not None:
        drawable("trace.svg")
    with ends(ValueError):
        loaded = load_whole(find(args.contract))
        device = settle(args.device)

    from kvparity.run.trace_command import trace_contract

    try:
        with ends(ValueError):
            traced = trace_contract(
                loaded, device, workload=args.workload, path=args.path, sequence=args.sequence
            )
            if args.out is not None:
                traced.write(args.out)
    except OSError as error:
        raise StopError(f"--out {args.out}: {error}") from error
    return _print(args, traced)


def _print(args: argparse.Namespace, traced: Traced) -> int:
    text = traced.text()
    if args.out is not None:
        text += f"\n\nwritten: {args.out / 'trace.jsonl'}, {args.out / 'trace.svg'}"
    say.result(args, traced.json(), text)
    return of_verdict(traced.verdict)
