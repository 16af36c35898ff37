"""``kvparity audit``: what the compiled kernels say about the reduction order, without running."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from kvparity.cli import say
from kvparity.cli.arguments import Verbs, add_contract, add_json
from kvparity.cli.stop import StopError, ends
from kvparity.core.exit_codes import ExitCode
from kvparity.relations.audit import words

_ORDER = ("split", "tile", "block_m", "num_warps")


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "audit",
        help="compile a contract's attention kernels and compare their reduction order",
        description="Compile the attention kernels that a contract would launch, without running "
        "them and without a GPU, and compare decode with prefill.",
        epilog=f"{words.cannot()}\n\nexit codes: 0 same, 1 different, 2 bad input, 3 a kernel "
        "does not compile, 5 unknown or equal by model",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_contract(parser)
    parser.add_argument(
        "--arch",
        nargs="+",
        metavar="ARCH",
        help="sm_80, sm_89, sm_90, sm_100; default: this machine's device, or all but sm_89 "
        "without one",
    )
    parser.add_argument(
        "--against",
        nargs="+",
        metavar="NAME=N",
        default=[],
        help=f"let decode have another order ({', '.join(_ORDER)}), to see what that would do",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="where compiled kernels are kept between runs"
    )
    parser.add_argument("--verbose", action="store_true", help="show fields that are the same too")
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Audit; returns the exit code."""
    from kvparity.relations.audit.contract import audit_contract, present
    from kvparity.relations.audit.request import AuditError
    from kvparity_contracts.files import load_whole
    from kvparity_contracts.library import find

    started = time.monotonic()
    try:
        with ends(ValueError), ends(AuditError, code=ExitCode.ERROR, words="error: "):
            loaded = load_whole(find(args.contract))
            against = dict(_change(text) for text in args.against)
            archs = tuple(dict.fromkeys(args.arch or present()))
            results = audit_contract(
                loaded.contract, loaded.base, archs, against=against, folder=args.cache
            )
    except OSError as error:
        raise StopError(f"--cache {args.cache}: {error.strerror}") from error
    from kvparity.core.versions import here
    from kvparity.relations.audit.report import AuditReport

    contract = {
        "name": loaded.contract.name, "path": str(loaded.path), "sha256": loaded.sha256,
    }  # fmt: skip
    report = AuditReport(contract, tuple(results), time.monotonic() - started, here())
    say.result(args, report.json(), report.text(args.verbose), beside=False)
    return exit_code(report.verdict)


def exit_code(verdict: str) -> ExitCode:
    """Only ``same`` is 0; what is unknown, or equal by a model alone, is void."""
    found = {"same": ExitCode.HOLDS, "different": ExitCode.DIFFERS}
    return found.get(verdict, ExitCode.VOID)


def _change(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in _ORDER or not number.isdigit():
        raise ValueError(
            f"--against {text}: expected NAME=N with NAME one of {', '.join(_ORDER)}, such as "
            "block_m=16"
        )
    return name, int(number)
