"""Run one control: the same rollout and rescoring as a unit, with a defect planted."""

from __future__ import annotations

from dataclasses import replace

from kvparity.controls.table import Planting, planting
from kvparity.core.errors import UnsupportedError
from kvparity.plan.cases import ControlRun
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record.execute import Tokens
from kvparity.record.path_run import PathRun, Setting
from kvparity.relations.asked import Asked, ComparedSide, ControlTrial, Planted
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.registry import path_relation
from kvparity.run.unit import oracle_values
from kvparity_contracts.controls import CONTROLS, Control
from kvparity_contracts.paths import PathName


def plant(setting: Setting, job: ControlRun, tokens: Tokens) -> Planted:
    """Plant one control and look whether its check sees it.

    Raises:
        UnsupportedError: it cannot be planted in this subject.
    """
    control = CONTROLS[job.control]

    def with_defect(defect: Planting) -> Comparison:
        return compare(setting, job, control, defect, tokens)

    return path_relation(job.relation).control(
        ControlTrial(
            setting, job, control, lambda: part(setting, job, tokens),
            clean=lambda: with_defect(Planting()),
            planted=lambda: with_defect(planting(control)),
        )
    )  # fmt: skip


def compare(
    setting: Setting, job: ControlRun, control: Control, defect: Planting, tokens: Tokens
) -> Comparison:
    """What a check of the job's relation finds where ``control`` is planted, with ``defect``."""
    plans, own = part(setting, job, tokens)
    rescored, candidate = sides(setting, control, defect, plans, own, job.reference, job.alone)
    plans = candidate.plans
    asked = Asked(
        setting.contract.check(job.check), job.numerics.execution, job.column,
        _computed(candidate), lambda: _computed(rescored),
        lambda: oracle_values(setting, plans, own),
    )  # fmt: skip
    return path_relation(job.relation).compare(asked).found


def sides(
    setting: Setting,
    control: Control,
    defect: Planting,
    plans: WorkloadPlans,
    own: Tokens,
    reference: PathName,
    alone: bool = False,
) -> tuple[PathRun, PathRun]:
    """The rescoring and the rollout of ``own`` with ``defect``.

    ``alone``: the rollout's path is not compared otherwise, and the rescoring has no defect.
    """
    prompts = plans.prompts
    if control.scores_prompt:
        # All that is known is scored: a prompt of one token, and the rest its continuation.
        prompts = replace(
            prompts, prompts=tuple(p[:1] for p in prompts.prompts), generate=len(own[0]) - 1
        )
        plans = plans.over(prompts)
    ids = [defect.handover(t, len(prompts.prompts[n])) for n, t in enumerate(own)]
    if setting.subject.vocab and max(map(max, ids)) >= setting.subject.vocab:
        raise UnsupportedError("this defect needs a vocabulary that holds all ASCII bytes")
    short = replace(prompts, generate=prompts.generate - (len(own[0]) - len(ids[0])))
    rescoring = setting.subject if alone else defect.rescore(setting.subject)
    return (
        PathRun(setting, rescoring, plans.over(short), reference, ids),
        PathRun(setting, defect.rollout(setting.subject), plans, control.path, own),
    )


def _computed(side: PathRun) -> ComparedSide:
    return ComparedSide(side, side.run, side.take_snapshot)


def part(setting: Setting, job: ControlRun, tokens: Tokens) -> tuple[WorkloadPlans, Tokens]:
    """The part of a workload on which a control is run, and all of its tokens."""
    plans = setting.plans(job.workload).part(job.sequences, job.generate)
    return plans, [tokens[i][: plans.prompts.length(n)] for n, i in enumerate(job.sequences)]
