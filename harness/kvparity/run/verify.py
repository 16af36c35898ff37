"""Carry out the work of a contract, apart from this process, and write the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from kvparity.core.environment import Environment, settle
from kvparity.core.isolation.inside import inside
from kvparity.core.isolation.pool import BadEndError, Pool, PoolTask
from kvparity.core.values import Json
from kvparity.plan.cases import ControlRun, Unit, Work, make
from kvparity.plan.kernel_cases import KernelControl, Unplanted
from kvparity.plan.results import CaseLine
from kvparity.plan.texts import given
from kvparity.report import evidence_check as believed
from kvparity.report import evidence_paths
from kvparity.report.document import CheckOfRun, OmittedPath, RunReport
from kvparity.report.lines import AnyLine, ControlEnd, FreshRows, UnitLine, answered
from kvparity.report.retries import not_the_last_word
from kvparity.report.run_dir import Evidence
from kvparity.report.schema import SCHEMA_VERSION
from kvparity.report.verdict import Judged, judge, not_modelled, other_than_requested
from kvparity.run import worker
from kvparity.run.device_switch import require_cpu
from kvparity.run.identity import identity, sources_of_run
from kvparity.run.kept import keep
from kvparity.run.locate_red import kept_located
from kvparity.run.pools import Locally, Pools
from kvparity.run.recheck.outcome import Outcome, judged, outcome
from kvparity.run.recheck.selection import select
from kvparity.run.reproduce import Processes, apart, run_cases, run_controls
from kvparity.run.unit import Tokens
from kvparity.run.worker import Job
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.loader import LoadedContract
from kvparity_kernels import device_model

TIMEOUT_S = 3600.0
"""The longest that one case, rollout, control or loading may take, where nothing else is asked."""
Progress = Callable[[int, int, str], None]
"""(cases finished, cases in all, what runs or ended)"""


@device_model.using(None)  # what is put in force in this very process ends with it
def verify(
    loaded: LoadedContract,
    *,
    device: str,
    folder: Path,
    jobs: int | None,
    resume: bool,
    command: str,
    progress: Progress,
    timeout: float = TIMEOUT_S,
    locate_s: float = 0.0,
    pools: Pools | None = None,
) -> RunReport:
    """Verify a contract and return the report, which is also ``run.json`` in ``folder``.

    The subject runs in ``jobs`` processes of its own (:mod:`kvparity.core.isolation`), of which
    only plain data comes back; None: as many as cores and memory allow. ``pools``: where these
    are, if not here. ``timeout``: seconds.
    ``locate_s``: seconds that are spent on where cases that differ part; none for 0.

    Raises:
        RunFolderError, UnsupportedError, SubjectError: see there; finished cases are on disk
        whatever happens.
        InternalError: a process failed by a fault of kvparity.
    """
    start = time.perf_counter()
    as_given, texts = loaded, given(loaded)
    loaded = texts.loaded
    contract = loaded.contract
    work = make(contract)
    settle()
    require_cpu(contract, device)
    pools = pools or Locally()
    job = Job(contract, Path(loaded.path).resolve().parent, device, folder.resolve())
    seen = pools.seen(job)
    evidence = Evidence(job.folder)  # a subject may change the current folder
    about = identity(loaded, seen.setting, seen.tiles)
    about |= texts.identity()
    with evidence.alone(about, resume=resume, command=command):
        keep(evidence.folder, as_given)
        relied = pools.tiles(job)  # before anything rests on them
        total = sum(len(unit.cases) for unit in work.units) + len(work.kernel_cases)

        def tell(what: str) -> None:
            progress(evidence.count("cases.jsonl"), total, what)

        count = pools.jobs(job, jobs)
        tell("starting")

        def others() -> Pool:
            return pools.open(job, pools.jobs(job, jobs), timeout, tell)

        try:
            worker.forget()
            with pools.open(job, count, timeout, tell) as pool:
                places = Processes(pool, others)
                tokens = _cases(places, job, work, evidence, tell)
                unplanted = _controls(places, job, work, evidence, tokens, tell)
                fresh = _recheck(pool, job, work, evidence, tokens)
                pool.finish()
        except BadEndError as error:
            evidence.ended_badly(str(error))
            raise
        parts = _report(loaded, work, evidence, seen.setting, unplanted, fresh)
        report = RunReport.model_validate(
            parts
            | {
                "run_dir": str(folder),
                "tiles": relied,
                "jobs": None if inside() else count.words(),
                "texts": texts.json(),
                "elapsed_s": round(time.perf_counter() - start, 2),
            }
        )
        evidence.finish(report)
        return kept_located(report, as_given, folder, locate_s, tell)


def _cases(
    places: Processes, job: Job, work: Work, evidence: Evidence, tick: Callable[[str], None]
) -> dict[str, Tokens]:
    """Run all cases that are not finished; returns the tokens of every unit.

    What is believed is what lies in the folder, not what a process of the subject answers.
    """
    evidence_paths.check(evidence, work)
    finished = frozenset(line.id for line in believed.cases(evidence, job.contract, work))
    tokens = {line.unit: line.tokens for line in believed.units(evidence, job.contract, work)}
    tasks: list[PoolTask[str]] = []
    for case in work.kernel_cases:  # an audit takes longest, and needs the GPU's compiler alone
        if case.id in finished:
            tick(case.id)
        else:
            tasks.append(PoolTask(worker.do_kernel_case, (job, case)))
    for unit in sorted(work.units, key=lambda u: -_weight(job, u)):
        if unit.id in tokens and all(c.id in finished or apart(c) for c in unit.cases):
            tick(unit.id)
        else:
            tasks.append(PoolTask(worker.do_unit, (job, unit, tokens.get(unit.id), finished)))
    for name in places.used.run(tasks):
        tick(str(name)[:200])
    tokens = {line.unit: line.tokens for line in believed.units(evidence, job.contract, work)}
    run_cases(places, job, work, finished, tokens, evidence, tick)
    believed.whole(evidence, work)
    return tokens


def _weight(job: Job, unit: Unit) -> int:
    """A guess at a unit's cost, so that the longest start first."""
    workload = next(w for w in job.contract.workloads if w.name == unit.workload)
    return sum(length + workload.generate * (64 + length) for length in workload.lengths())


def _controls(
    places: Processes,
    job: Job,
    work: Work,
    evidence: Evidence,
    tokens: dict[str, Tokens],
    tick: Callable[[str], None],
) -> tuple[Unplanted, ...]:
    """Run all controls that are not finished; returns those that could not be planted."""
    finished = {(e.name, e.relation) for e in believed.controls(evidence, work)}
    asked = job.contract.controls != "all"
    tasks: list[PoolTask[Json]] = []
    again: list[ControlRun] = []
    for control in reversed(work.every_control):  # what takes longest first
        if (control.control, control.relation) in finished:
            tick(control.control)
        elif isinstance(control, ControlRun) and apart(control):
            again.append(control)
        elif isinstance(control, KernelControl):
            tasks.append(PoolTask(worker.do_kernel_control, (job, control)))
        else:
            tasks.append(
                PoolTask(worker.do_control, (job, control, tokens[_unit_of(work, control)]))
            )
    own = {control.control: tokens[_unit_of(work, control)] for control in again}
    refused = list(run_controls(places, job, again, own, evidence))
    for answer in places.used.run(tasks):
        end = answered(ControlEnd, answer)
        if end.unplanted is not None:
            refused.append(Unplanted(end.name, end.relation, end.unplanted, asked))
        tick(end.name)
    planned = [(control.control, control.relation) for control in work.every_control]
    refused.sort(key=lambda each: planned.index((each.control, each.relation)))
    return (*work.unplanted, *refused)


def _recheck(
    pool: Pool, job: Job, work: Work, evidence: Evidence, tokens: dict[str, Tokens]
) -> Outcome:
    """Rows of the cases that hold, from processes that have not seen the other side."""
    if inside():
        return Outcome({}, skipped="the subject ran in the process that asked for the run")
    lines = believed.units(evidence, job.contract, work)
    verdicts = {c.id: c.verdict for c in believed.cases(evidence, job.contract, work)}
    selection = select(job.contract, work.units, verdicts)
    tasks = [
        PoolTask(worker.do_recheck, (job, request.unit, request.paths, tokens[request.unit.id]))
        for request in selection.requests
    ]
    answers = [answered(FreshRows, answer) for answer in pool.run(tasks)]
    return outcome(selection, lines, answers)


def _unit_of(work: Work, control: ControlRun) -> str:
    fits = [
        unit
        for unit in work.units
        if (unit.workload, unit.numerics) == (control.workload, control.numerics)
    ]
    own = CONTROLS[control.control].path
    return next((unit for unit in fits if unit.rollout == own), fits[0]).id


def _report(
    loaded: LoadedContract,
    work: Work,
    evidence: Evidence,
    setting: Environment,
    unplanted: tuple[Unplanted, ...],
    fresh: Outcome,
) -> dict[str, object]:
    """The parts of the report but for where, how long and with which tiles and texts it ran."""
    believed.whole(evidence, work)  # what computed rows again may have written, too
    cases = believed.cases(evidence, loaded.contract, work)
    results = judged(work.units, sorted(cases, key=lambda line: line.id), fresh)
    results, caught = not_the_last_word(evidence, results, believed.controls(evidence, work))
    controls = _in_order(
        caught,
        [(c.control, c.relation) for c in work.every_control],
        lambda line: (line.name, line.relation),
    )
    units = _in_order(
        believed.units(evidence, loaded.contract, work),
        [u.id for u in work.units],
        lambda line: line.unit,
    )
    replaced = other_than_requested(units) or not_modelled(loaded.contract, units)
    verdict, checks = judge(loaded.contract, work, results, controls, unplanted, replaced)
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": verdict,
        "contract": {
            "name": loaded.contract.name,
            "path": str(loaded.path),
            "sha256": loaded.sha256,
            "seed": loaded.contract.seed,
            "sources": sources_of_run(loaded, evidence.folder),
        },
        "command": evidence.command(),
        "environment": setting,
        "subject": units[0].subject if units else {},
        "kernels": _kernels(units, results),
        "checks": [_check(each) for each in checks],
        "controls": controls,
        "unplanted": [asdict(control) for control in unplanted],
        "recheck": fresh.entry(),
    }


def _check(found: Judged) -> CheckOfRun:
    omitted = (
        OmittedPath(workload=each.workload, path=each.path, reason=each.reason)
        for each in found.omitted
    )
    return CheckOfRun.model_validate(vars(found) | {"omitted": tuple(omitted)})


def _in_order(
    lines: list[AnyLine], planned: Sequence[object], name: Callable[[AnyLine], object]
) -> list[AnyLine]:
    """The lines in the order of the plan, whichever process ended first."""
    at = {each: number for number, each in enumerate(planned)}
    return sorted(lines, key=lambda line: at[name(line)])


def _kernels(units: Sequence[UnitLine], cases: Sequence[CaseLine]) -> dict[str, Json]:
    """Every kernel that was launched, by name."""
    found: dict[str, Json] = {}
    for unit in units:
        for launches in unit.launches.values():
            found.update(launches.kernels)
    for case in cases:
        found.update(case.kernels)
    return found
