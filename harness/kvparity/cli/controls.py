"""``kvparity controls``: the planted defects, and what catches each of them."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from kvparity.cli import progress, say
from kvparity.cli.arguments import Verbs, add_device, add_json
from kvparity.cli.stop import StopError, ends
from kvparity.core.exit_codes import ExitCode
from kvparity.run.device import settle


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "controls",
        help="list the planted defects, or run them all and say what catches them",
        description="List every control: what it plants, where it comes from, where it applies "
        "and which relation must catch it. With --run, plant each in small decoders and kernel "
        "pairs, run every relation, and name causes as locate does.",
        epilog="Exit codes of --run: 0 each control is caught by all relations that must, 1 one "
        "is not, 2 bad input, 3 a backend failed. Some minutes on two CPU cores.",
    )
    parser.add_argument("--run", dest="matrix", action="store_true", help="run the matrix")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help="these controls")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write defect-zoo.json and defect-zoo.md there"
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="processes (default: the CPU cores; one on a GPU)"
    )
    add_json(parser)
    add_device(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List or run; returns the exit code."""
    from kvparity.labs.defect_matrix import text
    from kvparity_contracts.base import closest
    from kvparity_contracts.controls import CONTROLS

    for name in args.only:
        if name not in CONTROLS:
            meant = closest(name, CONTROLS)
            hint = f"; did you mean {meant}?" if meant else ""
            raise StopError(f"found the unknown control {name!r}, expected one of the list{hint}")
    if args.matrix:
        return _matrix(args)
    if args.only or args.out or args.jobs:
        raise StopError("--only, --out and --jobs are for --run; add it, or leave them out")
    controls = [text.listed(each) for each in CONTROLS.values()]
    say.result(args, controls, text.listing(), beside=False)
    return ExitCode.HOLDS


def _matrix(args: argparse.Namespace) -> int:
    with ends(ValueError):
        device = settle(args.device)
    if args.jobs is not None and args.jobs < 1:
        raise StopError(f"--jobs {args.jobs}: expected at least 1")
    import torch

    from kvparity.core.environment import environment
    from kvparity.core.environment import settle as settle_process
    from kvparity.core.machine import cores
    from kvparity.labs.defect_matrix import matrix, text

    jobs = args.jobs or (1 if device != "cpu" else cores().count)
    start = time.perf_counter()
    settle_process()
    facts = environment(torch.device(device)).document()
    results = matrix.run(args.only, device=device, jobs=jobs, progress=_progress)
    located = matrix.located(results, device=device, jobs=jobs, progress=_located)
    found = matrix.document(results, located, facts, time.perf_counter() - start)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        whole = json.dumps(found, indent=1, allow_nan=False)
        (args.out / "defect-zoo.json").write_text(whole + "\n", encoding="utf-8")
        (args.out / "defect-zoo.md").write_text(text.page(found), encoding="utf-8")
    say.result(args, found, text.terminal(found))
    return ExitCode.HOLDS if found["ok"] else ExitCode.DIFFERS


def _progress(done: int, total: int) -> None:
    progress.line(f"{done} of {total} entries", end="\n" if done == total else "")


def _located(done: int, total: int) -> None:
    progress.line(f"{done} of {total} located", end="\n" if done == total else "")
