"""Run one control: the same rollout and rescoring as a unit, with a defect planted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from kvparity.controls.reach import reaches
from kvparity.controls.semantics import ROWS
from kvparity.controls.table import Planting, planting
from kvparity.core.errors import UnsupportedError
from kvparity.core.words import of_allowed, rounded
from kvparity.plan.cases import Case, ControlRun
from kvparity.plan.results import ControlLine, Formats, Reach
from kvparity.record.execute import Tokens
from kvparity.record.path_run import Setting, Side
from kvparity.relations.bits_and_limits import Comparison, invariance, measures
from kvparity.relations.cache_relations import compare_caches, probe, trace
from kvparity.report.labels import COUNTED
from kvparity.run.unit import judge_accuracy, oracle_values
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_contracts.controls import CONTROLS, Control
from kvparity_contracts.paths import PREFILL


@dataclass(frozen=True)
class Planted:
    """What a check said of a planted defect; ``measured``: what its limits were checked against.

    ``reach``: of a fault that both kernels share, what every accuracy check sees of it.
    """

    caught: bool
    seen: str
    measured: Mapping[str, float | str] = field(default_factory=dict)
    reach: tuple[Reach, ...] = ()


def run_control(setting: Setting, job: ControlRun, tokens: Tokens) -> tuple[bool, str]:
    """Plant one control and look whether its check sees it: (caught, what was seen).

    Raises:
        UnsupportedError: it cannot be planted in this subject.
    """
    found = plant(setting, job, tokens)
    return found.caught, found.seen


def plant(setting: Setting, job: ControlRun, tokens: Tokens) -> Planted:
    """The same with what was measured."""
    control = CONTROLS[job.control]
    pair = setting.subject
    if job.relation == "accuracy" and control.name in ROWS and isinstance(pair, AttentionSubject):
        return _by_reach(setting, pair, job, tokens)
    if not job.covered:
        clean = compare(setting, job, control, Planting(), tokens)
        # What is void without the defect shows nothing by being void with it.
        if clean.outcome in ("differs", control.expect) or not clean.tokens:
            seen = f"it fails without the defect, too: {_seen(clean, job.relation)}"
            return Planted(False, seen)
    result = compare(setting, job, control, planting(control), tokens)
    measured = measures(result) if job.relation == "accuracy" else {}
    return Planted(result.outcome == control.expect, _seen(result, job.relation), measured)


def _by_reach(setting: Setting, pair: AttentionSubject, job: ControlRun, tokens: Tokens) -> Planted:
    """A fault that both kernels share, checked against all accuracy checks of the contract."""
    plans = setting.plans(job.workload).part(job.sequences, job.generate)
    own = [tokens[i][: plans.prompts.length(n)] for n, i in enumerate(job.sequences)]
    returned = Side(setting, pair, plans, PREFILL, own).run().values.shape[1]
    lse = returned > pair.heads.query * pair.heads.dim
    found = tuple(reaches(setting, pair, ROWS[job.control], lse=lse))
    first = next((each for each in found if not each.seen), found[0])
    words = of_allowed({"max_abs": first.measured}, {"max_abs": first.limit})
    seen = f"differs: over the limit: {words}" if first.seen else f"not seen: {words}"
    rounding = f"{first.dtype} alone rounds by {rounded(first.rounding)}"
    return Planted(
        caught=first.seen,
        seen=seen if first.seen else f"{seen}; {rounding}",
        measured={"max_abs": first.measured},
        reach=found,
    )


def compare(
    setting: Setting, job: ControlRun, control: Control, defect: Planting, tokens: Tokens
) -> Comparison:
    """What a check of the job's relation finds where ``control`` is planted, with ``defect``."""
    plans = setting.plans(job.workload).part(job.sequences, job.generate)
    prompts = plans.prompts
    own = [tokens[i][: prompts.length(n)] for n, i in enumerate(job.sequences)]
    if control.scores_prompt:
        # All that is known is scored: a prompt of one token, and the rest its continuation.
        prompts = replace(
            prompts, prompts=tuple(p[:1] for p in prompts.prompts), generate=len(own[0]) - 1
        )
        plans = plans.over(prompts)
    ids = [defect.handover(t, len(prompts.prompts[n])) for n, t in enumerate(own)]
    if setting.subject.vocab and max(map(max, ids)) >= setting.subject.vocab:
        raise UnsupportedError("this defect needs a vocabulary that holds all ASCII bytes")
    candidate = Side(setting, defect.rollout(setting.subject), plans, control.path, own)
    if job.relation == "liveness":
        return probe(candidate, job.check)[0]
    if job.relation == "trace":
        return trace(candidate)[0]
    case = Case(
        "control", job.check, job.relation, job.workload, control.path,
        job.reference, job.numerics, job.temperature, job.column,
    )  # fmt: skip
    if job.relation == "accuracy":
        wanted = oracle_values(setting, plans, own)
        return judge_accuracy(setting.contract, case, candidate.run(), wanted)
    short = replace(prompts, generate=prompts.generate - (len(own[0]) - len(ids[0])))
    rescoring = setting.subject if job.alone else defect.rescore(setting.subject)
    reference = Side(setting, rescoring, plans.over(short), job.reference, ids)
    if job.relation == "cache":
        return compare_caches(reference, candidate)[0]
    return invariance(reference.run(), candidate.run(), column=job.column)


def _seen(result: Comparison, relation: str) -> str:
    if result.outcome == "differs" and result.differing_tokens:
        counted = COUNTED.get(relation, "tokens")
        return f"{result.reason}: {result.differing_tokens} of {result.tokens} {counted}"
    return f"{result.outcome}: {result.reason}"


def control_line(job: ControlRun, planted: Planted) -> ControlLine:
    """The line of one control."""
    return ControlLine(
        name=job.control,
        relation=job.relation,
        caught=planted.caught,
        by=job.check,
        seen=planted.seen,
        measured=dict(planted.measured),
        reach=planted.reach,
        workload=job.workload,
        path=str(CONTROLS[job.control].path),
        expected=CONTROLS[job.control].expect,
        numerics=Formats(**asdict(job.numerics)),
    )
