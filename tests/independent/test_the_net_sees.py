"""Controls of the net: with one function of the tool changed, tool and script must part.

Each change is planted where the tool looks the function up, and its case is run as the agreement
tests run it. A change that lets them still agree would show that the net cannot see it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import net
import one_fault
import pytest
import torch
from one_fault import CACHE_FAULTS, FAULTS, Fault, Plant
from played import Tables

from kvparity.core import bits, drift
from kvparity.record import cache_snapshot, scoring
from kvparity.relations import bits_and_limits
from kvparity.relations.accuracy import measure as accuracy
from kvparity.relations.cache import compare as cache
from kvparity.run import unit
from kvparity_contracts.limits import Limits

Agreement = Callable[[net.Ran, Tables, str], list[str]]


@dataclass(frozen=True)
class Change:
    """``target`` is replaced by ``by``; the case with fault ``plant`` must show it."""

    name: str
    target: tuple[Any, str]
    by: Any
    plant: Plant
    check: Mapping[str, Any]
    agreement: Agreement
    path: str = "decode"


def _close(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return ~torch.isclose(a, b, rtol=1e-5, equal_nan=True)


def _digest_of(columns: slice) -> Any:
    return lambda rows: collect_digest(rows[:, columns].contiguous())


collect_digest = scoring.row_digest
exact_drift = drift.drift
exact_bits = bits.differing


def _in_float32(*, rollout: torch.Tensor, trainer: torch.Tensor) -> drift.Drift:
    return exact_drift(rollout=torch.zeros_like(rollout), trainer=trainer - rollout)


def _turned(*, rollout: torch.Tensor, trainer: torch.Tensor) -> drift.Drift:
    return exact_drift(rollout=trainer, trainer=rollout)


def _one_sided(*, rollout: torch.Tensor, trainer: torch.Tensor) -> drift.Drift:
    d = trainer.double() - rollout.double()
    return replace(exact_drift(rollout=rollout, trainer=trainer), max_abs_dlogp=float(d.max()))


def _ten_times(limits: Limits) -> dict[str, float]:
    return {name: 10 * limit for name, limit in exact_given(limits).items()}


exact_given, exact_oracle = Limits.given, unit.oracle_values
exact_aggregates = accuracy.aggregates
digests = cache_snapshot._digests


def _oracle_float32(*given: Any) -> torch.Tensor:
    return exact_oracle(*given).float().double()


def _but_the_last(rollout: torch.Tensor, trainer: torch.Tensor, column: int | None) -> Any:
    return exact_aggregates(rollout[:-1], trainer[:-1], column)


def _first_values(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    off = exact_bits(a, b)
    off[-1] = False
    return off


def _first_half(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return digests(k[:, :3], v[:, :3])


def _by_limits(ran: net.Ran, tables: Tables, path: str) -> list[str]:
    return net.accuracy(ran, tables, net.TIGHT)


def _change(name: str, target: tuple[Any, str], by: Any, case: tuple[Any, ...]) -> Change:
    return Change(name, target, by, *case)


def on_bits(plant: Plant, path: str = "decode") -> tuple[Any, ...]:
    return plant, net.BITS, net.bits, path


def on_drift(plant: Plant) -> tuple[Any, ...]:
    return plant, net.BITS, net.drift


EXACT = (one_fault.far_from_float64, net.exact(net.TIGHT), _by_limits)


def on_caches(plant: Plant) -> tuple[Any, ...]:
    return plant, net.HELD, net.contents


CHANGES = (
    _change("logprobs-nearly-equal", (bits_and_limits, "differing"), _close,
            on_bits(one_fault.ulp_in_every_row)),
    _change("last-token-not-compared", (bits_and_limits, "differing"), _first_values,
            on_bits(one_fault.last_row, "padded-left")),
    _change("ulps-of-values-not-of-bits", (bits_and_limits, "ulps"), lambda a, b:
            (a - b).abs().long(),
            on_bits(one_fault.one_way)),
    _change("rows-without-digests", (scoring, "row_digest"), _digest_of(slice(0, 1)),
            on_bits(one_fault.hidden_column)),
    _change("rows-but-the-last-column", (scoring, "row_digest"), _digest_of(slice(0, -1)),
            on_bits(one_fault.hidden_column)),
    _change("zeros-are-equal", (scoring, "row_digest"), lambda x:
            collect_digest(x + 0.0), on_bits(one_fault.other_zero, "batched")),
    _change("subtracted-in-float32", (bits_and_limits, "drift"), _in_float32,
            on_drift(one_fault.far_off)),
    _change("drift-turned-round", (bits_and_limits, "drift"), _turned, on_drift(one_fault.far_off)),
    _change("largest-d-not-absolute", (bits_and_limits, "drift"), _one_sided,
            on_drift(one_fault.far_off)),
    _change("clipped-later", (drift, "CLIP_HIGH"), 1e9, on_drift(one_fault.far_off)),
    _change("limits-times-ten", (Limits, "given"), _ten_times, EXACT),
    _change("oracle-in-float32", (unit, "oracle_values"), _oracle_float32, EXACT),
    _change("last-token-not-measured", (accuracy, "aggregates"), _but_the_last, EXACT),
    _change("only-keys-digested", (cache_snapshot, "_digests"), lambda k, v: digests(k, k),
            on_caches(one_fault.v_of_layer_1)),
    _change("first-heads-digested", (cache_snapshot, "_digests"), _first_half,
            on_caches(one_fault.k_of_the_last_head)),
    _change("read-is-not-held-against-written", (cache, "_alone"), lambda *given: None,
            on_caches(one_fault.both_read_another_v)),
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda each: each.name)
def test_a_changed_tool_disagrees(
    change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = Fault(change.plant).planted(net.SEED)
    monkeypatch.setattr(*change.target, change.by)
    ran = net.play(tmp_path, monkeypatch, tables, change.check)
    assert change.agreement(ran, tables, change.path) != []


def test_the_cases_of_the_changes_agree_without_them() -> None:
    """Of ``test_played``, at the same seed: what parts here does so for the change alone."""
    there = {(each.plant, "bits") for each in FAULTS} | {(each, "held") for each in CACHE_FAULTS}
    here = {(each.plant, each.check["name"]) for each in CHANGES if each.check != EXACT[1]}
    assert here <= there
