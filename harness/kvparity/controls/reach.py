"""Whether the limits of accuracy checks can see a fault that both kernels of a pair share.

The fault is measured alone: exact rows with it, rounded as a kernel must round them, against the
exact rows. Over all that a check compares, in each of its formats, since a limit is only as good
as the data that it is compared with. No kernel of the pair runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from kvparity.core.errors import UnsupportedError
from kvparity.core.lse import lse_rounded
from kvparity.plan.planted import Reach
from kvparity.plan.schedule import Member
from kvparity.record.path_run import Setting
from kvparity.subjects.pair.exact import Rows, exact, in_format, rounded
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_contracts.checks import Accuracy


def reaches(setting: Setting, subject: AttentionSubject, rows: Rows, *, lse: bool) -> list[Reach]:
    """How far each accuracy check of the contract sees, in each format.

    Raises ``UnsupportedError`` where exact rows are not finite in their format: no limit says
    anything of them.

    ``rows`` computes what kernels with the fault give; ``lse``: the pair returns an LSE, which is
    compared too.
    """
    found = []
    for check in setting.contract.checks:
        if not isinstance(check, Accuracy):
            continue
        for execution, kv_cache in setting.contract.numerics.formats():
            limit = check.limits_for(execution).max_abs
            if limit is not None:
                formed = in_format(subject, execution, str(kv_cache))
                measured, rounding = _measured(setting, formed, rows, check, limit, lse)
                found.append(
                    Reach(
                        check=check.name,
                        dtype=execution,
                        kv_cache=str(kv_cache),
                        limit=limit,
                        measured=measured,
                        rounding=rounding,
                        seen=measured > limit,
                    )
                )
    return found


def _measured(
    setting: Setting, subject: AttentionSubject, rows: Rows, check: Accuracy, limit: float,
    lse: bool,
) -> tuple[float, float]:  # fmt: skip
    """(of the fault, of rounding), at most; shorter sequences first, until the fault is seen."""
    fault = rounding = 0.0
    width = subject.heads.out
    for member, wanted in _sequences(setting, check):
        inputs = subject.stored(member, wanted)
        right = exact(subject, *inputs)[: len(wanted)]
        rounding = max(rounding, _distance(rounded(subject, right), right, width, lse))
        wrong = rounded(subject, rows(subject, *inputs)[: len(wanted)])
        fault = max(fault, _distance(wrong, right, width, lse))
        if fault > limit:
            break
    return fault, rounding


def _sequences(setting: Setting, check: Accuracy) -> Iterator[tuple[Member, range]]:
    """Members and compared rows of everything that a check looks at, shorter ones first."""
    found = []
    for workload in setting.contract.workloads_of(check):
        plans = setting.plans(workload.name)
        prompts = plans.prompts
        for i, member in enumerate(plans.members):
            found.append((member, range(len(prompts.prompts[i]) - 1, prompts.length(i) - 1)))
    return iter(sorted(found, key=lambda each: each[1].stop))


def _distance(found: Tensor, right: Tensor, width: int, lse: bool) -> float:
    """As accuracy measures it, which counts no rounding of an LSE; those are behind ``width``."""
    if not lse:
        found, right = found[:, :width], right[:, :width]
    distance = float((found - lse_rounded(found, right, width)).abs().max())
    if not math.isfinite(distance):
        raise UnsupportedError(
            "rows computed in float64 are NaN or infinite once they are rounded as a kernel rounds "
            "them, so no limit can be compared with them"
        )
    return distance
