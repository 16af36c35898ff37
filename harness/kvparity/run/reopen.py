"""One case of a finished or interrupted run, ready to be run again on the run's own tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kvparity.core.environment import settle
from kvparity.core.values import Json
from kvparity.plan.cases import Case, Unit, make
from kvparity.plan.kernel_cases import KernelCase
from kvparity.plan.texts import given
from kvparity.record.path_run import Setting
from kvparity.report import evidence_paths
from kvparity.report.lines import edited
from kvparity.report.recorded import RecordedCase, RecordedUnit
from kvparity.report.run_dir import Evidence, RunFolderError, read_identity
from kvparity.report.schema import schema_of
from kvparity.run.device_switch import with_device
from kvparity.run.invariant_switch import asked, with_invariant
from kvparity.run.unit import Runner
from kvparity.run.worker import Job, subject_of
from kvparity_contracts.loader import LoadedContract


@dataclass(frozen=True)
class ReopenedRun:
    """A run of which one case is looked at. ``kernel_case``: where it compares no paths."""

    job: Job
    loaded: LoadedContract
    case_id: str
    recorded: Json
    schema: int
    kernel_case: KernelCase | None


@dataclass(frozen=True)
class ReopenedUnit:
    """The unit of a case. ``before``: the units that were ready before its own."""

    setting: Setting
    runner: Runner
    unit: Unit
    case: Case
    before: tuple[str, ...]


def reopen(loaded: LoadedContract, folder: Path, case_id: str, device: str) -> ReopenedRun:
    """Find a case in a run of this contract.

    Raises:
        RunFolderError: the run has no such case, or its texts are other ids now.
    """
    identity = read_identity(folder / "identity.json")
    switched = identity.get("invariant")
    loaded = with_invariant(loaded, switched if isinstance(switched, bool) else asked(loaded))
    modelled = identity.get("numerics_device")
    loaded = with_device(loaded, modelled if isinstance(modelled, str) else None)
    texts = given(loaded)
    loaded = texts.loaded
    if texts.identity().get("texts") != identity.get("texts"):
        raise RunFolderError(
            f"the texts of {loaded.path} are different ids now than in {folder}: was the "
            "tokenizer or its chat template changed? (some templates write the date)"
        )
    recorded = {line.id: line.document() for _, line in Evidence(folder).read(RecordedCase)}
    if case_id not in recorded:
        known = ", ".join(list(recorded)[:8])
        raise RunFolderError(f"{folder} has no case {case_id!r}; it has {known}, ...")
    job = Job(loaded.contract, Path(loaded.path).resolve().parent, device, folder)
    kernels = (case for case in make(loaded.contract).kernel_cases if case.id == case_id)
    schema = schema_of(identity)
    return ReopenedRun(job, loaded, case_id, recorded[case_id], schema, next(kernels, None))


def unit_of(run: ReopenedRun) -> ReopenedUnit:
    """Load the subject of a case that compares paths, with the tokens of the run.

    Raises:
        RunFolderError: the contract has no such case, or its unit has no evidence yet.
    """
    evidence = Evidence(run.job.folder)
    unit, case = find_case(run.loaded, run.case_id)
    units = {line.unit: (number, line) for number, line in evidence.read(RecordedUnit)}
    if unit.id not in units:
        words = f"the unit {unit.id!r} of {run.case_id} was interrupted; resume it first"
        raise RunFolderError(words)
    evidence_paths.require_drawn(evidence, unit)
    settle()
    setting = Setting(run.loaded.contract, subject_of(run.job, case.numerics))
    number, line = units[unit.id]
    plans, tokens = setting.plans(case.workload), line.tokens
    lengths = [plans.prompts.length(i) for i in range(len(plans.prompts.ids))]
    if [len(own) for own in tokens] != lengths:
        found = [len(own) for own in tokens]
        place = f"{evidence.folder / RecordedUnit.file}:{number}"
        raise edited(place, f"its sequences have {found} ids, and {lengths} are planned")
    ready = list(units)
    before = tuple(ready[: ready.index(unit.id)])
    return ReopenedUnit(setting, Runner(setting, plans, tokens), unit, case, before)


def find_case(loaded: LoadedContract, case_id: str) -> tuple[Unit, Case]:
    """A case of a contract, and the unit that holds it.

    Raises:
        RunFolderError: there is none of this id.
    """
    for unit in make(loaded.contract).units:
        for case in unit.cases:
            if case.id == case_id:
                return unit, case
    raise RunFolderError(f"the contract has no case {case_id}: was it changed since the run?")
