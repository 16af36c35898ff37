"""``kvparity tiles``: which other tiles give the same bits, and what is in force here."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from kvparity.cli import progress, say
from kvparity.cli.arguments import Verbs, add_device, add_json
from kvparity.cli.stop import StopError, ends
from kvparity.core import versions
from kvparity.core.exit_codes import ExitCode
from kvparity.run.device import settle

_DTYPES = ("bfloat16", "float16", "float32")


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "tiles",
        help="which tiles of the kernels are in force here, and which give the same bits",
        description="Show the tile equivalences measured per device and the tiles in force on this "
        "one; or measure every choice here, or check the rows that are in force.",
        epilog="Exit codes: 0 shown, measured, or the rows in force hold (also where there are "
        "none); 1 a row in force differs; 2 bad input; 3 the kernels or the table failed; 5 a "
        "control of the measurement or check failed its expected result.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--measure",
        action="store_true",
        help="compare every choice with the base, in bits, and print rows for the table",
    )
    what.add_argument(
        "--check", action="store_true", help="check the rows in force here with a short probe"
    )
    what.add_argument(
        "--predict",
        action="store_true",
        help="compile rows and warps of attention, and compare them with the base by the code and "
        "a model of tensor cores; runs nothing, puts nothing in force",
    )
    parser.add_argument(
        "--arch",
        nargs="+",
        metavar="ARCH",
        help="what to predict for: sm_80, sm_89, sm_90, sm_100 (default: as kvparity audit)",
    )
    parser.add_argument(
        "--dtype",
        nargs="+",
        choices=_DTYPES,
        metavar="DTYPE",
        help="formats to measure, check or predict (default: bfloat16 float16 float32)",
    )
    parser.add_argument(
        "--choice", nargs="+", metavar="NAME", help="choices to measure or predict (default: all)"
    )
    parser.add_argument(
        "--evidence",
        default="",
        metavar="PATH",
        help="what the rows name as their evidence: where the document of --json will be kept, "
        "under docs/results/",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="processes that measure (default: one per core, up to 16; CPU: 1)",
    )
    add_json(parser)
    add_device(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show, measure or check; returns the exit code."""
    wrong = _misused(args)
    if wrong is not None:
        raise StopError(wrong)
    from kvparity_kernels.rules import RulesError

    if args.predict:
        return _predict(args)
    with ends(ValueError):
        device = settle(args.device)
    from kvparity.core.environment import settle as settle_process

    settle_process()
    with ends(RulesError, code=ExitCode.ERROR, words="error: "):
        if args.measure:
            return _measure(args, device)
        return _check(args, device) if args.check else _show(args, device)


def _misused(args: argparse.Namespace) -> str | None:
    from kvparity_kernels.rules import choices

    if args.arch and not args.predict:
        return "--arch says what to predict for; add --predict"
    if args.predict and args.device:
        return "--device: --predict runs on none; name what to predict for with --arch"
    given = [name for name in ("choice", "evidence", "jobs") if getattr(args, name)]
    if given and not (args.measure or (args.predict and given == ["choice"])):
        return f"--{given[-1]} says how to measure; add --measure"
    if args.dtype and not (args.measure or args.check or args.predict):
        return "--dtype says what to measure or check; add --measure or --check"
    if args.jobs is not None and args.jobs < 1:
        return f"--jobs {args.jobs}: expected at least 1"
    unknown = [name for name in args.choice or () if name not in choices()]
    if unknown:
        return f"--choice {unknown[0]!r} is unknown; expected one of: {'; '.join(choices())}"
    return None


def _predict(args: argparse.Namespace) -> int:
    from kvparity.relations.audit.contract import present
    from kvparity.relations.audit.predict import candidates, predict
    from kvparity.relations.audit.request import AuditError
    from kvparity.tiles import text

    for name in args.choice or ():
        if name not in candidates():
            raise StopError(
                f"--choice {name!r} is not predicted; one of: {'; '.join(candidates())}"
            )
    failed = ends(AuditError, code=ExitCode.ERROR, words="error: ")
    with ends(ValueError), failed, progress.Progress(of="kernels") as shown:
        found = predict(
            tuple(dict.fromkeys(args.arch or present())),
            tuple(dict.fromkeys(args.dtype or _DTYPES)),
            args.choice and tuple(dict.fromkeys(args.choice)),
            progress=lambda done, total: shown(done, total, "compiling"),
        )
    document = {"schema_version": 1, "predicted": [each.as_json() for each in found]}
    say.result(args, document, text.predictions([each.line for each in found]), beside=False)
    return ExitCode.HOLDS


def _show(args: argparse.Namespace, device: str) -> int:
    import torch

    from kvparity.tiles import text
    from kvparity.tiles.force import describe
    from kvparity.tiles.predicted import predicted
    from kvparity_kernels import rules

    found = describe(torch.device(device))
    hoped = [each for each in predicted() if found["arch"] in (None, each.arch)]
    table, names = rules.table(), list(rules.choices())
    rows = [vars(rule) for rule in table]
    document = {"schema_version": 1, "rows": rows, "choices": names, "here": found}
    document["predicted"] = [vars(each) for each in hoped]
    words = f"{text.table(table)}\n{text.here(found, device)}"
    if hoped:
        lines = [(e.arch, e.triton, e.dtype, e.choice, e.word, "") for e in hoped]
        words += f"\n{text.predictions(lines)}"
    say.result(args, document, words, beside=False)
    return ExitCode.HOLDS


def _measure(args: argparse.Namespace, device: str) -> int:
    import torch

    from kvparity.core.machine import cores
    from kvparity.tiles import text
    from kvparity.tiles.document import measurement
    from kvparity.tiles.force import place
    from kvparity.tiles.predicted import first
    from kvparity_kernels.rules import choices

    dtypes = tuple(dict.fromkeys(args.dtype or _DTYPES))
    named = first(reversed(choices()), place(torch.device(device)).arch, dtypes)
    found = measurement(
        torch.device(device),
        dtypes,
        tuple(dict.fromkeys(args.choice or named)),
        jobs=args.jobs or (min(16, cores().count) if device.startswith("cuda") else 1),
        evidence=args.evidence,
        progress=progress.line,
    )
    if args.json:
        say.document(found.document())
    else:
        print(json.dumps([asdict(row) for row in found.rows], indent=1))
    say.tell(text.measured(found), file=sys.stderr)
    return ExitCode.HOLDS if found.verdict == "measured" else ExitCode.VOID


def _check(args: argparse.Namespace, device: str) -> int:
    import torch

    from kvparity.tiles import text
    from kvparity.tiles.check import check, complaint, device_words

    found = check(torch.device(device), tuple(dict.fromkeys(args.dtype or _DTYPES)))
    name = device_words(torch.device(device))
    good = found.verdict in ("base", "holds")
    words = text.checked(found, name) if good else complaint(found, name)
    more = {"outside_tested": versions.here()}
    words = "\n".join([words, *versions.lines(more)])
    say.result(args, {"schema_version": 1, **found.document(), **more}, words)
    if good:
        return ExitCode.HOLDS
    return ExitCode.DIFFERS if found.verdict == "differs" else ExitCode.VOID
