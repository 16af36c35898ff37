"""What runs in a worker process: units and controls, with the subject loaded once per numerics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from kvparity.core import doing
from kvparity.core.environment import settle, settle_again, unsettled
from kvparity.core.errors import OracleError, SubjectError, UnsupportedError
from kvparity.core.isolation.child import stop_a_copy
from kvparity.core.values import Json
from kvparity.plan.cases import Case, ControlRun, Unit
from kvparity.plan.kernel_cases import KernelCase, KernelControl, KernelNumerics
from kvparity.relations.accuracy.measure import Against
from kvparity.relations.asked import Kernels, Planted, Sided
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.invariance import InvarianceCase
from kvparity.relations.registry import kernel_relation, path_relation
from kvparity.report import evidence_paths as believed
from kvparity.report.case_line import case_line, control_line, kernel_line
from kvparity.report.lines import (
    ControlEnd,
    FreshRows,
    PathLine,
    Row,
    UnitLine,
    answered,
)
from kvparity.report.run_dir import Evidence, RunFolderError
from kvparity.report.unit_paths import Before
from kvparity.run.control_run import plant
from kvparity.run.device_switch import require_cpu
from kvparity.run.recheck import zygote
from kvparity.run.recheck.work import again
from kvparity.run.unit import Setting, Tokens, run_unit
from kvparity.subjects.base import Subject
from kvparity.subjects.registry import factory
from kvparity_contracts.contract import Contract
from kvparity_contracts.paths import PathName
from kvparity_kernels import device_model

Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """What every task of one verification shares."""

    contract: Contract
    base: Path
    device: str
    folder: Path


_subjects: dict[tuple[str, KernelNumerics], Subject] = {}
_kept: list[object] = []
"""Of one run: another's begins with :func:`forget`, or in another process."""


def forget() -> None:
    """Of earlier runs in this process: a folder's name may come again, with other functions."""
    _subjects.clear()
    _kept.clear()


def start() -> None:
    """The first task of a worker process."""
    settle()
    zygote.start()


def subject_of(job: Job, numerics: KernelNumerics) -> Subject:
    """The job's subject in one numerics, loaded at the first call.

    From then on this process computes products as the contract's device does, or as no device.
    """
    require_cpu(job.contract, job.device)
    device_model.use(job.contract.numerics.device)
    key = (str(job.folder), numerics)
    if key not in _subjects:
        for old in [name for name in _subjects if name[0] != key[0]]:
            del _subjects[old]  # another run's, in a process that verifies one after the other
        doing.task(f"{doing.LOADING} the subject in {numerics.execution}")
        try:
            _subjects[key] = factory(job.contract.subject.kind)(
                job.contract.subject,
                execution=numerics.execution,
                kv_cache=numerics.kv_cache,
                device=torch.device(job.device),
                seed=job.contract.seed,
                base=job.base,
            )
        except torch.cuda.OutOfMemoryError as error:
            raise SubjectError(f"out of device memory while loading the subject: {error}") from None
        except ValueError as error:  # a setting or a name that means nothing here
            raise UnsupportedError(str(error)) from error
        try:
            still_settled(doing.now().task)
        except SubjectError:
            del _subjects[key]
            raise
    return _subjects[key]


def do_unit(job: Job, unit: Unit, tokens: Tokens | None, done: frozenset[str]) -> str:
    """Run a unit; its cases and its evidence are on disk when it returns its name."""
    evidence = Evidence(job.folder)

    def emit(case: Case, result: Comparison, reference: Sided | None, candidate: Sided) -> None:
        still_settled(doing.now().task)
        file = None
        if isinstance(reference, Against):
            file = evidence.keep_accuracy(case.id, reference)
        elif result.outcome == "differs" and reference is not None:
            file = evidence.keep_failure(case.id, reference, candidate)
        evidence.write(case_line(case, result, file))

    def run() -> UnitLine:
        setting = Setting(job.contract, subject_of(job, unit.numerics))
        before = _before(evidence, unit, done)
        return run_unit(
            setting, unit, tokens=tokens, done=done, emit=emit, before=before, ran=evidence.write
        )

    with telling(evidence, unit.id):
        found = guarded(run)
    if tokens is None:  # else the line is there, and a case of the unit was run again
        evidence.write(found)
    return unit.id


def _before(evidence: Evidence, unit: Unit, done: frozenset[str]) -> Before:
    """What the folder holds of a unit that was interrupted."""
    if not done and not evidence.count(PathLine.file):
        return Before()
    relations = {case.id: path_relation(case.relation) for case in unit.cases}
    own = {name for name in done & relations.keys() if relations[name].line is InvarianceCase}
    details = (line.details for _, line in evidence.read(InvarianceCase, own))
    told = (each.repeats for each in details if each is not None and each.repeats)
    return Before(tuple(believed.of_unit(evidence, unit)), next(told, {}))


def do_control(job: Job, control: ControlRun, tokens: Tokens) -> Json:
    """Run a control. A control that cannot be planted has a reason, ``unplanted``.

    No control ends a run: whatever the subject raises behind a planted defect is what was seen of
    it, and the defect was not caught.
    """
    setting = Setting(job.contract, subject_of(job, control.numerics))
    doing.task(f"control {control.control} of relation {control.relation} over {control.workload}")
    return _end_of(job, control, lambda: plant(setting, control, tokens))


def _end_of(job: Job, control: ControlRun | KernelControl, run: Callable[[], Planted]) -> Json:
    """What a worker says of a control, whose line is on disk if it could be planted."""
    unplanted = None
    try:
        planted = guarded(run)
    except (OracleError, UnsupportedError) as error:
        unplanted = str(error)
    except Exception as error:
        planted = Planted(False, ended(error))
    if unplanted is None:
        Evidence(job.folder).write(control_line(control, planted))
    end = ControlEnd(name=control.control, relation=control.relation, unplanted=unplanted)
    return end.document()


def do_recheck(job: Job, unit: Unit, paths: Sequence[PathName], tokens: Tokens) -> Json:
    """Chosen rows of ``paths``, from a fresh process; ``rows`` by path."""
    doing.task(f"rows of {unit.id}, in a fresh process")
    _subjects.clear()  # nothing here needs it any more, and memory may hold it once only
    if job.device.startswith("cuda"):
        torch.cuda.empty_cache()
    with telling(Evidence(job.folder), unit.id):
        rows = zygote.ask(_rows_again, job, unit, paths, tokens)
        return answered(FreshRows, {"unit": unit.id, "rows": rows}).document()


def _rows_again(
    job: Job, unit: Unit, paths: Sequence[PathName], tokens: Tokens
) -> dict[str, tuple[Row, ...]]:
    setting = Setting(job.contract, subject_of(job, unit.numerics))
    return again(setting, unit.id, unit.workload, paths, tokens)


def do_kernel_case(job: Job, case: KernelCase) -> str:
    """Run a case of an order or audit check; it is on disk when it returns its name."""
    evidence = Evidence(job.folder)
    with telling(evidence, case.id):
        found = kernel_line(case, guarded(lambda: look(job, case)))
    evidence.write(found)
    return case.id


def look(job: Job, case: KernelCase) -> Comparison:
    """What a case of a check of kernels finds."""
    relation = kernel_relation(case.relation)
    return relation.look(_kernels(job, case, f"case {case.id}: {relation.words(case)}"), case)


def _kernels(job: Job, case: KernelCase, words: str) -> Kernels:
    """Where a case looks; ``words``: what is done meanwhile, once the subject is loaded."""

    def subject() -> Subject:
        found = subject_of(job, case.numerics)
        doing.task(words)
        return found

    doing.task(words)
    return Kernels(job.contract, job.base, subject, job.device, job.folder, _kept)


def do_kernel_control(job: Job, control: KernelControl) -> Json:
    """Run a control of an order or audit check; see ``do_control``."""

    def run() -> Planted:
        words = f"control {control.control} of relation {control.relation}"
        kernels = _kernels(job, control.case, words)
        return kernel_relation(control.relation).control(kernels, control)

    return _end_of(job, control, run)


def ended(error: Exception) -> str:
    """What is seen of a control that raised: in words, on one line."""
    kind = "" if isinstance(error, SubjectError) else f"{type(error).__name__}: "
    return f"the run with it ended: {kind}{' '.join(str(error).split()) or 'without a message'}"


def still_settled(where: str) -> None:
    """Raise ``SubjectError`` where the subject changed what holds for the whole process.

    A copy of the process that the subject made ends here.
    """
    stop_a_copy()
    off = unsettled()
    if off is not None:
        settle_again()  # for what this process runs next
        raise SubjectError(
            f"{where}: {off}, which kvparity had set otherwise; the subject may not change "
            "process-wide settings: remove the change, or restore them"
        )


@contextmanager
def telling(evidence: Evidence, name: str) -> Iterator[None]:
    """What a subject raises says in which task, and leaves its traceback in the run folder.

    ``name``: of the unit or case, where it is not raised in one.
    """
    try:
        yield
    except SubjectError as error:
        task = doing.now().task
        found = SubjectError(doing.placed(str(error)))
        if error.trace:
            case = task.removeprefix("case ").partition(":")[0]
            try:
                file = evidence.keep_trace(case if task.startswith("case ") else name, error.trace)
                found = SubjectError(f"{found}; its traceback: {file}")
            except RunFolderError as unwritten:
                found = SubjectError(f"{found}; {unwritten}")
        raise found from error


def guarded(task: Callable[[], Result]) -> Result:
    """Run ``task``; running out of memory becomes a ``SubjectError`` that names the place.

    What the subject changed for the whole process is told first: other errors may come of it.
    """
    try:
        try:
            return task()
        finally:
            still_settled(doing.now().task)
    except (SubjectError, UnsupportedError):
        raise
    except SystemExit as error:  # or the subject could choose our exit code
        words = f"the subject ended the process ({error!r})"
        raise SubjectError(doing.placed(words)) from error
    except torch.cuda.OutOfMemoryError as error:
        raise SubjectError(doing.placed(f"out of device memory: {error}")) from None
    except MemoryError:
        raise SubjectError(doing.placed("out of memory")) from None
