"""``kvparity replay``: run one case of a run again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from kvparity.cli import say
from kvparity.cli.arguments import Verbs, add_current, add_device, add_json, since_words
from kvparity.cli.stop import ends
from kvparity.core import versions
from kvparity.core.exit_codes import of_verdict
from kvparity.report.schema import RESIGNED, SCHEMA_VERSION
from kvparity.run.device import settle

if TYPE_CHECKING:
    from kvparity.run.kept import Since
    from kvparity.run.replay import Replay


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "replay",
        help="rerun one case of a run and show its first divergence",
        description="Rerun one case on the tokens that the run recorded.",
    )
    parser.add_argument("run_dir", type=Path, help="the folder of the run")
    parser.add_argument("case", help="the case's id, such as c007")
    add_current(parser)
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replay; the exit code is that of the case's verdict now, if that is no better than it was."""
    with ends(ValueError):
        device = settle(args.device)
    from kvparity.run.kept import as_in, contract_of
    from kvparity.run.replay import replay

    with ends(ValueError):
        loaded = contract_of(args.run_dir)
        with as_in(args.run_dir, loaded, current=args.current) as since:
            found = replay(loaded, args.run_dir, args.case, device)
    document = {
        "schema_version": SCHEMA_VERSION,
        "recorded_schema": found.schema,
        "case": found.entry.document(),
        "same_as_recorded": found.same,
        "row": found.row,
        "outside_tested": versions.here(),
        "after_others": found.after_others,
        "keeps_state": found.keeps_state,
        "changed_files": list(since.changed),
        "kept_files": list(since.kept),
    }
    say.result(args, document, _text(found, since), beside=False)
    return of_verdict(found.verdict)


def _text(found: Replay, since: Since) -> str:
    from kvparity.core.words import digits, rounded
    from kvparity.relations.registry import RELATIONS
    from kvparity.report.terminal import first_lines, ulps

    case = found.entry
    agreed = found.fresh if case.verdict == "holds" else None
    verdict = found.verdict if agreed else case.verdict
    lines = [f"{case.id}: {verdict.upper()}: {agreed or case.reason}"]
    lines += versions.lines({"outside_tested": versions.here()})
    if case.workload is not None and not agreed:
        lines += first_lines([case])
    elif not agreed:
        lines += RELATIONS[case.relation].spots(case)
    lines += [f"    {words}" for words in since_words(since)]
    lines.append(f"    {_repeats(found, ', '.join(since.changed))}")
    if found.schema != SCHEMA_VERSION:
        lines.append(
            f"    the run has schema {found.schema}, with the other sign of d: "
            f"{' and '.join(RESIGNED)} were not compared with what it recorded"
        )
    if found.row:
        row = found.row
        lines.append(f"    that row: {row['differing']} of {row['columns']} columns differ")
        if not row["differing"]:
            lines[-1] += " when both sides are rerun: earlier calls decide it, or chance"
        for c in row["farthest"]:
            lines.append(
                f"      {c['name']:<18} {digits(c['reference'])} against {digits(c['candidate'])}: "
                f"{rounded(c['distance'])} apart, {ulps(c['ulps'])}"
            )
    return "\n".join(lines)


def _repeats(found: Replay, changed: str) -> str:
    """Whether the case gave what the run recorded, and if not, why. ``changed``: the subject's
    files that are others now."""
    if found.fresh is not None and found.entry.verdict == "holds":
        return (
            "As in the run, its two sides agree in one process, but not with a "
            f"process that computed nothing else: {_STATE}"
        )
    unsteady = [name for name, steady in (found.entry.repeats or {}).items() if not steady]
    if found.same and unsteady and not changed:
        return (
            "the same result as the run recorded, in another process, though "
            f"{' and '.join(unsteady)} gave different bits when rerun in it: {_STATE}"
        )
    if found.same:
        beside = f", though what it had has changed: {changed}" if changed else ""
        return f"the same result as the run recorded{beside}"
    if changed:
        return f"NOT the result that the run recorded, since what it had has changed: {changed}"
    if found.keeps_state:
        alone, after = _WORDS[found.entry.verdict], _WORDS[str(found.after_others)]
        if alone == after:
            return (
                f"NOT the result that the run recorded. Alone the case {alone} in another way; "
                f"rerun after the cases before it, it is as in the run: {_STATE}"
            )
        return (
            f"NOT the result that the run recorded. Alone the case {alone}; rerun after the cases "
            f"that came before it, it {after} as in the run: {_STATE}"
        )
    if found.moves:
        return (
            "NOT the result that the run recorded, and a third one after the cases that came "
            "before it: state between calls decides, or the subject is not deterministic"
        )
    return (
        "NOT the result that the run recorded: the subject is not deterministic, or the machine "
        "changed"
    )


_STATE = "state between calls decides (a workspace, a buffer or a counter that the subject keeps)"
_WORDS = {"holds": "holds", "differs": "differs", "void": "is void", "error": "fails"}
