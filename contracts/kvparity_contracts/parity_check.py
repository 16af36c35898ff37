"""A check that two sides score the same tokens alike: equal bits, or limits of what people log."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from kvparity_contracts.base import Fault, closest, exactly_one, refuse, show
from kvparity_contracts.check_base import KernelCheck, KernelPoint
from kvparity_contracts.numerics import Numerics
from kvparity_contracts.sides import Sides
from kvparity_contracts.subjects import AnySubject

PARITY_LIMITS: Mapping[str, tuple[float, float]] = {
    "max_abs_d": (0, math.inf),
    "mean_abs_d": (0, math.inf),
    "abs_k1": (0, math.inf),
    "k3": (0, math.inf),
    "outside_clip": (0, 1),
    "training/rollout_probs_diff_max": (0, 1),
    "training/rollout_probs_diff_mean": (0, 1),
    "rollout_corr/k3_kl": (0, math.inf),
    "rollout_corr/log_ppl_abs_diff": (0, math.inf),
    "sampling/sampling_logp_difference/mean": (0, math.inf),
    "sampling/sampling_logp_difference/max": (0, math.inf),
    "token_mult_prob_error": (1, math.inf),
    "gen_kl_error": (0, math.inf),
    "policy_kl_error": (0, math.inf),
    "js_divergence_error": (0, math.inf),
    "train/train_rollout_logprob_abs_diff": (0, math.inf),
    "train/train_rollout_kl": (0, math.inf),
    "mismatch_kl": (0, math.inf),
    "logprob_abs_error": (0, math.inf),
    "logprob_bit_mismatch": (0, 1),
    "mismatch_k3_stable": (0, math.inf),
    "policy/rollout_train_logprobs_abs_diff_mean": (0, math.inf),
    "policy/rollout_train_logprobs_abs_diff_max": (0, math.inf),
    "debug/vllm_vs_local_logprob_diff_mean": (0, math.inf),
    "debug/vllm_vs_local_logprob_diff_max": (0, math.inf),
    "rollout_train_extreme_frac_tau2": (0, 1),
    "optim/kl_sample_train_v2": (0, math.inf),
}
"""What can be limited, in the names of ``kvparity drift`` and of the frameworks: distances, which
are at their least where both sides agree. (least, most) that each can be."""


def _limits(value: object) -> object:
    if not isinstance(value, dict) or not value:
        refuse([Fault((), f"found {show(value)}", "limits by name, such as {k3: 1.0e-3}")])
    assert isinstance(value, dict)
    refuse(fault for name, limit in value.items() for fault in _limit(name, limit))
    return {name: float(limit) for name, limit in value.items()}


def _limit(name: object, limit: object) -> Iterator[Fault]:
    at = (str(name),)
    if name not in PARITY_LIMITS:
        near = closest(name, PARITY_LIMITS)
        tails = {each.rpartition("/")[2]: each for each in PARITY_LIMITS}
        near = near or tails.get(closest(name, tails), "")
        expected = "a number that kvparity drift or a framework logs, such as k3 or mismatch_kl"
        yield Fault(at, f"found the unknown limit {show(name)}", near or expected)
        return
    least, most = PARITY_LIMITS[str(name)]
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not math.isfinite(limit):
        yield Fault(at, f"found {show(limit)}", "a finite number")
    elif limit < least:
        yield Fault(at, f"found {limit:g}", f"at least {least:g}, where both sides agree")
    elif limit >= most:
        found = f"found {limit:g}, which is never exceeded: it is at most {most:g}"
        yield Fault(at, found, f"a limit below {most:g}")


class ParityCheck(KernelCheck):
    """Both sides give every compared token the same logprob, by bits or within limits."""

    TAG: ClassVar[str] = "parity"
    COMPARES = "a parity check compares the two sides of its subject"

    relation: Literal["parity"]
    """parity: logprobs that two sides give the same tokens are compared."""
    bits: Literal["equal"] | None = None
    """equal: every token has the same bits. Either this or limits."""
    limits: Annotated[
        dict[str, float],
        BeforeValidator(_limits),
        WithJsonSchema(
            {
                "type": "object",
                "propertyNames": {"enum": list(PARITY_LIMITS)},
                "additionalProperties": {"type": "number"},
                "minProperties": 1,
            }
        ),
    ] | None = None  # fmt: skip
    """Upper limits by name, as `kvparity drift` or a framework logs them."""
    unmatched: Annotated[int, Field(ge=0)] = 0
    """Sequences of the rollout that may lack a counterpart; more make the check void."""

    def own_faults(self) -> Iterator[Fault]:
        """Nothing that is claimed, or two claims."""
        yield from exactly_one(self, "bits", "limits")

    def points(self, execution: str) -> Iterator[KernelPoint]:
        """One."""
        yield KernelPoint()

    def limits_in(self, execution: str) -> Mapping[str, float]:
        """Those of the check: its sides say their formats themselves."""
        return self.limits or {}

    def faults(self, subject: AnySubject, numerics: Numerics) -> Iterator[Fault]:
        """A subject that has no two sides."""
        if not isinstance(subject, Sides):
            message = f"found 'parity' beside a subject of kind {subject.kind}"
            yield Fault(("relation",), message, "a subject of kind sides")
