"""``kvparity contract show``, ``explain`` and ``diff``: contracts, read for people."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from kvparity.cli import say
from kvparity.core.exit_codes import ExitCode
from kvparity.core.words import some
from kvparity.run.options import RUNS
from kvparity_contracts import find, load
from kvparity_contracts.claims import difference
from kvparity_contracts.contract import Contract
from kvparity_contracts.files import load_whole
from kvparity_contracts.loader import LoadedContract
from kvparity_contracts.planning import LeftOut, PlantedControl, fates
from kvparity_contracts.sides import Sides
from kvparity_contracts.subjects import order_of

if TYPE_CHECKING:
    from kvparity.plan.cases import Work


def run_show(args: argparse.Namespace) -> int:
    """Print the text of a contract."""
    path = find(args.contract)
    load(path)
    print(path.read_text(encoding="utf-8-sig"), end="")
    return ExitCode.HOLDS


def run_diff(args: argparse.Namespace) -> int:
    """Print what a change from one contract to another means; 1 if something is claimed less."""
    found = difference(*(load(find(each)).contract for each in (args.old, args.new)))
    if args.json:
        say.document({"schema_version": 1, "weaker": found.weaker, **asdict(found)}, indent=2)
        return ExitCode.DIFFERS if found.weaker else ExitCode.HOLDS
    lines = [f"{word}: {each}" for word, every in asdict(found).items() for each in every]
    for each in lines or ["both claim the same"]:
        say.tell(each)
    return ExitCode.DIFFERS if found.weaker else ExitCode.HOLDS


def run_explain(args: argparse.Namespace) -> int:
    """Print what a run would do, without running it."""
    from kvparity.plan.cases import make
    from kvparity.plan.texts import given

    loaded = given(load_whole(find(args.contract))).loaded
    contract, work = loaded.contract, make(loaded.contract)
    say.tell(f"{contract.name}: {contract.about}" if contract.about else contract.name)
    for line in (*_checks(contract, work), *_controls(contract), *_extent(contract, work)):
        say.tell(line)
    for line in _earlier(loaded):
        say.tell(line)
    return ExitCode.HOLDS


def _checks(contract: Contract, work: Work) -> Iterator[str]:
    """Each check with its cases, and paths that would show nothing."""
    cases = [case for unit in work.units for case in unit.cases]
    for check in contract.checks:
        own = [case for case in cases if case.check == check.name]
        inner = [case for case in work.kernel_cases if case.check == check.name]
        yield f"{check.name}  [{check.relation}]  {some(len(own) + len(inner), 'case')}"
        if own:
            paths, loads = (_each(str(case.path) for case in own), _each(c.workload for c in own))
            reference = _each(str(case.reference) for case in own if case.reference)
            against = f" against {reference}" if reference else ""
            formats = _each(str(case.numerics) for case in own)
            yield f"    {paths}{against}, over {loads}, in {formats}"
        if inner and isinstance(contract.subject, Sides):
            yield f"    {contract.subject.words()}"
        elif inner:
            points = _each(each.architecture or f"{each.keys} keys" for each in inner)
            yield f"    {points}, in {_each(str(each.numerics) for each in inner)}"
        for each in work.omitted:
            if each.check == check.name:
                yield f"    not run: {each.path} over {each.workload}: {each.reason}"


def _controls(contract: Contract) -> Iterator[str]:
    """Those that would be planted; of those that are named and are not, why."""
    found = list(fates(contract))
    planted = _each(each.control.name for each in found if isinstance(each, PlantedControl))
    yield f"controls: {planted or 'none can be planted'}"
    if contract.controls != "all":
        for each in found:
            if isinstance(each, LeftOut):
                yield f"    not planted: {each.control.name}: {each.reason}"


def _extent(contract: Contract, work: Work) -> Iterator[str]:
    """How much would be computed, and with how many keys the compared rows."""
    from kvparity.plan.extent import compared, crossed, tokens

    order = order_of(contract.subject)
    for workload in contract.workloads:
        if isinstance(contract.subject, Sides):
            prompts = some(len(workload.lengths()), "prompt")
            yield f"workload {workload.name}: {prompts}, {workload.generate} tokens drawn from each"
            continue
        ranges = compared(workload)
        shown = _each(f"{r[0]}" if len(r) == 1 else f"{r[0]} to {r[-1]}" for r in ranges)
        edges = crossed(ranges, (order.tile, order.split) if order else ())
        yield (
            f"workload {workload.name}: compares rows with {shown} keys; "
            f"crosses {_each(map(str, edges)) or 'no edge of a tile'}"
        )
    if work.units:
        yield f"to compute: {tokens(work):,} tokens on all paths, without the controls"


def _earlier(loaded: LoadedContract) -> Iterator[str]:
    """How long the last run of the very same file took, where its folder is at its usual place."""
    from kvparity.report.document import RunReport

    for folder in sorted(RUNS.glob(f"*-{loaded.contract.name}*"), reverse=True):
        with suppress(OSError, ValueError):
            run = RunReport.model_validate_json((folder / "run.json").read_text(encoding="utf-8"))
            if run.contract.sha256 == loaded.sha256:
                took = f"took {run.elapsed_s:.1f} s on {run.environment.device}"
                yield f"the last run {took}: {folder}"
                return
    yield f"there is no earlier run of this file in {RUNS}, so its time is not known"


def _each(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))
