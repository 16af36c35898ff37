"""``kvparity report``: what a run found, read again from its folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvparity.cli import replaceable, say
from kvparity.cli.arguments import Verbs, add_json
from kvparity.cli.stop import drawable
from kvparity.core.exit_codes import ExitCode

PAGE = "report.html"
"""Of a run folder, where no other file is named."""


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "report",
        help="show the report of a run again, as text or as one HTML page",
        description="Show what a run found, from its folder alone; nothing is run.",
        epilog="Exit codes: 0 the report was made, whatever its verdict; 2 the folder holds no "
        "finished run, or a file cannot be written; 3 the extra report is missing.",
    )
    parser.add_argument("run_dir", type=Path, help="the folder of the run")
    parser.add_argument(
        "--html",
        type=Path,
        nargs="?",
        const=Path(),
        metavar="FILE",
        help="write one page that opens offline to FILE, by default RUN_DIR/report.html (needs the "
        "extra report)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show it, and write what is asked for."""
    file: Path | None = None
    if args.html is not None:
        file = args.run_dir / PAGE if args.html == Path() else args.html
        drawable(f"--html {file}")
        replaceable.may_replace("--html", file, *replaceable.PAGE)
    from kvparity.report.finished import finished
    from kvparity.report.terminal import render

    report = finished(args.run_dir)
    text = render(report)
    if file is not None:
        from kvparity.report.page.render import page

        replaceable.write("--html", file, page(args.run_dir, report))
        text += f"\nwritten: {file}"
    say.result(args, report.document(), text, beside=False)
    return ExitCode.HOLDS
