"""``kvparity report``: what a run found, read again from its folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvparity.cli import replaceable, say
from kvparity.cli.arguments import Verbs, add_json
from kvparity.cli.stop import StopError, drawable
from kvparity.core.exit_codes import ExitCode
from kvparity.sweeps.store import is_store, needed

PAGE, COMPARED = "report.html", "compare.html"
"""Of a run folder, where no other file is named."""


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "report",
        help="show the report of a run or sweep again, or what changed between two runs, as text "
        "or HTML page",
        description="Show what a run found, or what changed between two, from their folders alone; "
        "nothing is run.",
        epilog="Exit codes: 0 the report was made, whatever its verdict, or both runs gave the "
        "same results; 1 they gave other results; 2 a folder holds no finished run, or a file "
        "cannot be written; 3 the extra report is missing.",
    )
    parser.add_argument(
        "run_dir", type=Path, nargs="?", help="the folder of the run, or the store of a sweep"
    )
    parser.add_argument(
        "--compare",
        type=Path,
        nargs=2,
        metavar=("A", "B"),
        help="what changed from the run in A to the one in B",
    )
    parser.add_argument(
        "--html",
        type=Path,
        nargs="?",
        const=Path(),
        metavar="FILE",
        help=f"write one page that opens offline to FILE, by default RUN_DIR/{PAGE} (needs the "
        f"extra report) or B/{COMPARED}",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show it, and write what is asked for."""
    if (args.run_dir is None) == (args.compare is None):
        raise StopError(_which(args))
    folder: Path = args.run_dir or args.compare[1]
    file: Path | None = None
    if args.html is not None:
        file = args.html
        if file == Path():
            file = folder / (PAGE if args.compare is None else COMPARED)
        if args.compare is None and not is_store(folder):
            drawable(f"--html {file}")
        replaceable.may_replace("--html", file, *replaceable.PAGE)
    if args.compare is not None:
        return _compare(args, file)
    if is_store(folder):
        return _store(args, folder, file)
    from kvparity.report.finished import finished
    from kvparity.report.terminal import render

    report = finished(folder)
    text = render(report)
    if file is not None:
        from kvparity.report.page.render import page

        replaceable.write("--html", file, page(folder, report))
        text += f"\nwritten: {file}"
    say.result(args, report.document(), text, beside=False)
    return ExitCode.HOLDS


def _store(args: argparse.Namespace, folder: Path, file: Path | None) -> int:
    """What a store says of its claims; as a page, by contracts and versions."""
    needed()
    from kvparity.report.page.render import scripted
    from kvparity.sweeps.history import history
    from kvparity.sweeps.page_view import store_view
    from kvparity.sweeps.reading import rows_in
    from kvparity.sweeps.text import history_document, history_text

    rows = rows_in(folder)
    found = history(rows)
    text = history_text(found)
    if file is not None:
        names = ", ".join(dict.fromkeys(row.sweep for row in rows if row.sweep))
        view = store_view(names or folder.resolve().name, rows, found)
        replaceable.write("--html", file, scripted("sweep.html", view))
        text += f"\nwritten: {file}"
    say.result(args, history_document(found), text, beside=False)
    return ExitCode.HOLDS


def _which(args: argparse.Namespace) -> str:
    if args.compare is not None:
        return f"found {args.run_dir} and --compare; expected one of them"
    if args.html not in (None, Path()):
        return (
            f"expected RUN_DIR, and --html took {args.html} for the name of its file; write "
            f"kvparity report {args.html} --html"
        )
    return "expected RUN_DIR, or --compare A B"


def _compare(args: argparse.Namespace, file: Path | None) -> int:
    from kvparity.report.compare.changes import compare
    from kvparity.report.compare.text import lines
    from kvparity.report.finished import read

    found = compare(*map(read, args.compare))
    text = "\n".join(lines(found))
    if file is not None:
        from kvparity.report.page.render import compared

        replaceable.write("--html", file, compared(found))
        text += f"\nwritten: {file}"
    say.result(args, found.document(), text, beside=False)
    return ExitCode.HOLDS if found.same else ExitCode.DIFFERS
