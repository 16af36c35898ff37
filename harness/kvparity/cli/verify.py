"""``kvparity verify``: the main job."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kvparity.cli import ci_files, ray_option, say
from kvparity.cli.arguments import Verbs, add_contract, add_device, jobs
from kvparity.cli.progress import Progress
from kvparity.cli.stop import StopError, ends
from kvparity.core.exit_codes import ExitCode, of_verdict
from kvparity.report.schema import SCHEMA_VERSION
from kvparity.run.device import settle
from kvparity.run.options import BUDGET_S, new_folder, seconds, sound
from kvparity_contracts.numerics import ARCHITECTURES

if TYPE_CHECKING:
    from kvparity.report.document import RunReport
    from kvparity_contracts.loader import LoadedContract

_TIMEOUT_S = 3600


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "verify",
        help="run a contract: roll out, rescore, compare, plant controls, judge",
        description="Run a contract and say whether it holds.",
        epilog="Exit codes: 0 holds, 1 differs, 2 bad input, 3 error, 5 void, 130 interrupted.",
    )
    add_contract(parser)
    add_device(parser)
    parser.add_argument(
        "--jobs",
        type=jobs,
        metavar="N",
        help="processes to use, or auto: as many as cores and memory allow on a CPU, with the "
        "limits of cgroups; one on CUDA (default: auto)",
    )
    parser.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="where evidence is written (default: .kvparity/runs/<time>-<name>)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="finish the interrupted run in --run-dir"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=_TIMEOUT_S,
        metavar="SECONDS",
        help="the longest that one case, rollout, control or loading may take "
        f"(default: {_TIMEOUT_S}); what is finished then is kept",
    )
    parser.add_argument(
        "--invariant",
        action="store_true",
        help="run a transformers contract twice, without and with torch's reductions in fixed "
        "order; the exit code is that of the second run",
    )
    parser.add_argument(
        "--as",
        dest="modelled",
        choices=ARCHITECTURES,
        help="on a CPU, compute products as this architecture's matrix instructions do, as "
        "numerics.device in the contract asks for it",
    )
    ray_option.add_arguments(parser, "needs --device, and --jobs is then the most tasks at a time")
    ci_files.add_arguments(parser)
    parser.add_argument(
        "--locate-budget",
        type=float,
        metavar="SECONDS",
        help="if the run differs, the longest time to look for where its cases diverge (default: "
        f"{BUDGET_S:g})",
    )
    parser.add_argument(
        "--no-locate", action="store_true", help="do not look for where cases diverge"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the report as one JSON document on stdout"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify; returns the exit code."""
    with ci_files.told(args) as tell:
        return _run(args, tell)


def _run(args: argparse.Namespace, tell: ci_files.Tell) -> int:
    from kvparity_contracts.files import load_whole
    from kvparity_contracts.library import find

    if args.no_locate and args.locate_budget is not None:
        raise StopError("--locate-budget means nothing with --no-locate; leave out one of them")
    if args.locate_budget is None:
        args.locate_budget = 0.0 if args.no_locate else BUDGET_S
    with ends(ValueError, words="--"):
        sound(args.jobs, args.timeout)
        ray_option.sound(args)
        if not args.no_locate:
            seconds("locate-budget", args.locate_budget)
    if args.resume and args.run_dir is None:
        raise StopError("--resume needs --run-dir, the folder of the interrupted run")
    with ends(ValueError), Progress() as bar:
        loaded = load_whole(find(args.contract))  # what is wrong with it is said without torch
        bar(0, 0, "loading torch")
        from kvparity.run.device_switch import with_device

        loaded = with_device(loaded, args.modelled)
        device = ray_option.device(args) or settle(args.device)
    folder = args.run_dir or new_folder(loaded.contract.name)
    try:
        if args.invariant:
            return _before_and_after(args, loaded, device, folder, tell)
        found = _verify(args, loaded, device, folder, args.resume)
    finally:
        if args.run_dir is None:
            with suppress(OSError):
                folder.rmdir()  # where nothing is in it: a run that was refused
    code = _print(args, found.document(), [found])
    return code if tell(found, loaded) else ExitCode.ERROR


def _before_and_after(
    args: argparse.Namespace,
    loaded: LoadedContract,
    device: str,
    folder: Path,
    tell: ci_files.Tell,
) -> int:
    """Without and with torch's reductions in fixed order; the second decides."""
    from kvparity.run.invariant_switch import with_invariant

    with ends(ValueError, words="--invariant: "):
        sides = {"before": with_invariant(loaded, False), "after": with_invariant(loaded, True)}
    reports = {}
    for name, contract in sides.items():
        inner = folder / name
        # An interruption may have come before the second run began.
        resume = args.resume and (name == "before" or inner.exists())
        reports[name] = _verify(args, contract, device, inner, resume)
    document = {
        "schema_version": SCHEMA_VERSION,
        "verdict": reports["after"].verdict,
        **{name: found.document() for name, found in reports.items()},
    }
    words = ", ".join(f"{name}: {found.verdict.upper()}" for name, found in reports.items())
    code = _print(args, document, list(reports.values()), f"\nwith --invariant, {words}")
    return code if tell(reports["after"], sides["after"]) else ExitCode.ERROR


def _print(
    args: argparse.Namespace,
    document: Mapping[str, object],
    reports: Sequence[RunReport],
    last: str | None = None,
) -> int:
    """The document on stdout if it was asked for, the text of each report, the exit code."""
    from kvparity.report.terminal import render

    text = "\n\n".join(map(render, reports)) + (f"\n{last}" if last else "")
    say.result(args, document, text)
    return of_verdict(str(document["verdict"]))


def _verify(
    args: argparse.Namespace, loaded: LoadedContract, device: str, folder: Path, resume: bool
) -> RunReport:
    from kvparity.core.errors import SubjectError
    from kvparity.run.locate_red import LocatingStoppedError
    from kvparity.run.verify import verify

    try:
        with ray_option.pools(args, loaded) as pools, Progress() as bar:
            return verify(
                loaded,
                device=device,
                folder=folder,
                jobs=args.jobs,
                resume=resume,
                command=shlex.join(["kvparity", *sys.argv[1:]]),
                progress=bar,
                timeout=args.timeout,
                locate_s=args.locate_budget,
                pools=pools,
            )
    except SubjectError as error:
        raise StopError(f"error: {error}{_kept(folder)}", ExitCode.ERROR) from error
    except KeyboardInterrupt as stop:
        if isinstance(stop, LocatingStoppedError) and not args.invariant:  # which has a second run
            raise StopError(stop.words, ExitCode.INTERRUPTED) from None
        whole = (
            f"--invariant --run-dir {folder.parent}" if args.invariant else f"--run-dir {folder}"
        )
        model = f"--as {args.modelled} " if args.modelled else ""
        model += ray_option.again(args)
        again = f"kvparity verify {args.contract} {model}{whole} --resume"
        words = f"interrupted{_kept(folder)}; finish with: {again}"
        raise StopError(words, ExitCode.INTERRUPTED) from None


def _kept(folder: Path) -> str:
    cases = folder / "cases.jsonl"
    count = cases.read_bytes().count(b"\n") if cases.is_file() else 0
    words = "1 finished case is" if count == 1 else f"{count} finished cases are"
    return f"; {words} kept in {folder}" if count else ""
