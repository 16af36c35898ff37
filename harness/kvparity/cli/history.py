"""``kvparity history``: claims over time, devices and versions."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvparity.cli import say
from kvparity.cli.arguments import Verbs, add_json
from kvparity.cli.stop import StopError
from kvparity.core.exit_codes import ExitCode


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "history",
        help="show claims over time, devices and versions: the first bad version, what is flaky",
        description="Show what a store of verifications says of every claim: over time, devices "
        "and versions, with the first bad version and what is flaky (extra history).",
        epilog="Exit codes: 0 shown, whatever the verdicts; 2 no store, no such claim, or a query "
        "that DuckDB refuses.",
    )
    parser.add_argument("store", type=Path, help="the folder of a sweep's store")
    parser.add_argument("contract", nargs="?", help="only this contract, by its name")
    parser.add_argument("--claim", metavar="NAME", help="only this check")
    parser.add_argument(
        "--add",
        type=Path,
        nargs="+",
        default=(),
        metavar="RUN_DIR",
        help="first add finished runs of kvparity verify to the store, which is created if it "
        "does not exist",
    )
    parser.add_argument(
        "--sql", metavar="QUERY", help="print what this query of DuckDB over the view cases gives"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Add what is to be added, and show what was asked for."""
    from kvparity.sweeps.store import SweepStore, needed

    needed()
    from kvparity.sweeps.added import add
    from kvparity.sweeps.history import history
    from kvparity.sweeps.reading import asked, rows_in
    from kvparity.sweeps.text import history_document, history_text, plain, sql_text

    if args.sql is not None and (args.contract or args.claim):
        raise StopError("found --sql beside a contract or --claim; put them into the query")
    store = SweepStore(args.store)
    if args.add:
        with store.alone():
            for folder in args.add:
                add(store, folder)
    if args.sql is not None:
        answer = asked(args.store, args.sql)
        rows = [dict(zip(answer.names, row, strict=True)) for row in answer.rows]
        say.result(args, plain({"schema_version": 1, "rows": rows}), sql_text(answer), beside=False)
        return ExitCode.HOLDS
    rows_of_store = rows_in(args.store)
    for value, known, what in (
        (args.contract, {row.contract for row in rows_of_store}, "contract"),
        (args.claim, {row.claim for row in rows_of_store if row.claim}, "claim"),
    ):
        if value is not None and value not in known:
            raise StopError(
                f"{args.store} holds no {what} {value!r}; it holds {', '.join(sorted(known))}"
            )
    found = history(rows_of_store, args.contract, args.claim)
    say.result(args, history_document(found), history_text(found), beside=False)
    return ExitCode.HOLDS
