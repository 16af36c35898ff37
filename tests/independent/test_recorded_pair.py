"""A pair of kernels that a contract names: tool and scripts on the rows that it gave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import float64_accuracy
import net
import numpy as np
import pytest
import recorded_pair as pair
import row_bits
import torch
from net import unlike
from recorded_pair import DIM, HEADS, KV_HEADS, Row, Spoil, Tape
from torch import Tensor

from kvparity.record import scoring
from kvparity.relations import bits_and_limits
from kvparity.relations.accuracy import measure as measuring
from kvparity.run import unit

PROMPTS, GENERATED = (2, 9), 3
INDEX = [(s, p) for s, n in enumerate(PROMPTS) for p in range(n - 1, n + GENERATED - 1)]
LIMITS = {"max_abs": 1e-5}
CONTRACT = {
    "version": 1,
    "name": "recorded",
    "seed": 5,
    "subject": {
        "kind": "attention",
        "prefill": "recorded_pair:prefill",
        "decode": "recorded_pair:decode",
        "heads": {"query": HEADS, "kv": KV_HEADS, "dim": DIM},
    },
    "numerics": {"execution": "float32"},
    "workloads": [{"name": "w", "prompt_tokens": list(PROMPTS), "generate": GENERATED}],
    "checks": [
        {"name": "bits", "relation": "invariance", "paths": ["decode"]},
        {"name": "exact", "relation": "accuracy", "paths": ["decode"], "limits": LIMITS},
    ],
    "controls": ["unequal-lengths"],
}


def ulp(part: str, *place: int) -> Spoil:
    """One ulp in ``out`` or ``lse``."""

    def spoil(out: Tensor, lse: Tensor) -> None:
        (out if part == "out" else lse).view(torch.int32)[place] += 1

    return spoil


def put(value: float) -> Spoil:
    """``value`` in head 2, dim 1."""

    def spoil(out: Tensor, lse: Tensor) -> None:
        out[2, 1] = value

    return spoil


def off(out: Tensor, lse: Tensor) -> None:
    out[3, 0] += 1e-3


KEYS = (3, 4, 10, 11)
"""What decoded rows see; no two rows see as many."""
FAULTS: dict[str, Callable[[int], Tape]] = {
    "nothing": lambda n: Tape(),
    "head-3": lambda n: Tape(decode={n: ulp("out", 3, 2)}),
    "last-lse": lambda n: Tape(decode={n: ulp("lse", HEADS - 1)}),
    "last-row": lambda n: Tape(decode={max(KEYS): ulp("out", 0, 0)}),
    "other-zero": lambda n: Tape(prefill={n: put(0.0)}, decode={n: put(-0.0)}),
    "nan-on-both": lambda n: Tape(prefill={n: put(torch.nan)}, decode={n: put(torch.nan)}),
    "inf-on-both": lambda n: Tape(prefill={n: put(torch.inf)}, decode={n: put(torch.inf)}),
    "v-only": lambda n: Tape(other_v=frozenset([n])),
    "both-far": lambda n: Tape(prefill={n: off}, decode={n: off}),
}


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> net.Ran:
    """Verify the pair with ``fault`` in one of its rows, which the fault's name chooses."""
    tape = FAULTS[fault](KEYS[sum(fault.encode()) % len(KEYS)])
    tape.lengths = tuple(n + GENERATED for n in PROMPTS)
    monkeypatch.setattr(pair, "tape", tape)
    return net.verify(folder, CONTRACT)


def rows() -> tuple[list[Row], list[Row]]:
    """The rows that both sides computed, by sequence and position: (prefill, rollout)."""
    names = [name for name in pair.tape.rollout if name in pair.tape.whole]
    names.sort(key=lambda name: len(pair.tape.whole[name].k))  # no two see as many keys
    return [pair.tape.whole[n] for n in names], [pair.tape.rollout[n] for n in names]


def flat(side: list[Row]) -> dict[str, np.ndarray]:
    """O by head, then LSE."""
    return {"rows": torch.stack([torch.cat([r.out.flatten(), r.lse]) for r in side]).numpy()}


def bits(ran: net.Ran) -> list[str]:
    """Verdict, counts, place and bits of the rows, and the evidence."""
    case = ran.case(relation="invariance")
    left, right = (flat(side) for side in rows())
    said = row_bits.answer(left, right)
    wrong = sorted({*said["differing"], *said["unfinite"]})
    found = unlike("verdict", case["verdict"], "differs" if wrong else "holds")
    found += unlike("rows", case["tokens"], len(INDEX)) + unlike("read", said["rows"], len(INDEX))
    for name in ("differing_tokens", "differing_rows"):
        found += unlike(name, case[name], len(wrong))
    found += unlike("max_ulp", case["max_ulp"], said["max_ulp"])
    whole = [row for row in range(len(INDEX)) if row not in said["unfinite"]]
    a, b = (each["rows"][whole].astype(np.float64) for each in (left, right))
    found += unlike("max_abs", case["max_abs"], float(np.abs(a - b).max()))
    first = case["first_divergence"]
    found += unlike("a first divergence", first is not None, bool(wrong))
    if first is None or not wrong:
        return found
    at = min(said["unfinite"] or wrong)
    sequence, position = INDEX[at]
    place = first["sequence"], first["position"]
    found += unlike("place", place, (f"w/{sequence}", position))
    if not said["unfinite"]:
        told = first["column"], [first["reference_bits"], first["candidate_bits"]], first["ulps"]
        wanted = said["first"]
        found += unlike("bits", told, (wanted["column"], wanted["bits"], wanted["steps"]))
    kept = ran.kept(case)
    for name, side in (("reference", left), ("candidate", right)):
        same = kept[f"{name}.values"].tobytes() == side["rows"].tobytes()
        found += unlike(f"kept {name}", same, True)
    return found


def accuracy(ran: net.Ran) -> list[str]:
    """Decode against naive float64 attention over the q, k and v that decode was given."""
    case = ran.case(relation="accuracy")
    side = rows()[1]
    longest = max(len(row.k) for row in side)
    padded = {
        name: torch.stack(
            [
                torch.cat([x, torch.full((longest - len(x), KV_HEADS, DIM), torch.nan)])
                for x in (getattr(row, name) for row in side)
            ]
        ).numpy()
        for name in ("k", "v")
    }
    given = {
        "q": torch.stack([row.q for row in side]).numpy(),
        "lengths": np.array([len(row.k) for row in side]),
        "scale": np.array([side[0].scale]),
        **padded,
    }
    out = torch.stack([row.out for row in side]).numpy()
    if not np.isfinite(out).all():
        return unlike("verdict", case["verdict"], "differs")
    said = float64_accuracy.answer({"out": out}, given)
    over = said["max_abs"] > LIMITS["max_abs"]
    found = unlike("verdict", case["verdict"], "differs" if over else "holds")
    found += unlike("tokens", case["tokens"], said["rows"])
    if not abs(case["max_abs"] - said["max_abs"]) <= net.ROUNDED:
        found += unlike("max_abs", case["max_abs"], said["max_abs"])
    sequence, position = INDEX[said["worst"]]
    worst = case["accuracy"]["worst"]
    if not abs(worst["error"] - said["max_abs"]) <= net.ROUNDED:
        found += unlike("error of the worst", worst["error"], said["max_abs"])
    place = worst["sequence"], worst["position"], worst["column"]
    return found + unlike("worst", place, (f"w/{sequence}", position, said["column"]))


@pytest.mark.parametrize("fault", FAULTS)
def test_rows_and_float64(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = run(tmp_path, monkeypatch, fault)
    assert bits(ran) == []
    assert accuracy(ran) == []
    verdicts = [ran.case(relation=each)["verdict"] for each in ("invariance", "accuracy")]
    wanted = {
        "nothing": ["holds", "holds"],
        "nan-on-both": ["differs", "differs"],
        "inf-on-both": ["differs", "differs"],
        "other-zero": ["differs", "differs"],
        "both-far": ["holds", "differs"],
    }
    assert verdicts == wanted.get(fault, ["differs", "holds"])


OUT = HEADS * DIM
right_bits, right_digest, right_ulps = (
    bits_and_limits.differing,
    scoring.row_digest,
    bits_and_limits.ulps,
)
right_aggregates, right_oracle = measuring.aggregates, unit.oracle_values


def bits_of_o(a: Tensor, b: Tensor) -> Tensor:
    unlike_bits = right_bits(a, b)
    unlike_bits[:, OUT:] = False
    return unlike_bits


def digest_of_o(x: Tensor) -> Tensor:
    return right_digest(x[:, :OUT].contiguous())


def patterns(a: Tensor, b: Tensor) -> Tensor:
    return (a.view(torch.int32).long() - b.view(torch.int32).long()).abs()


def first_head(found: Tensor, exact: Tensor, column: int | None) -> dict[str, Any]:
    return right_aggregates(found[:, :DIM], exact[:, :DIM], column)


def half_exact(*given: Any) -> Tensor:
    return right_oracle(*given).float().double()


Agreement = Callable[[net.Ran], list[str]]
CHANGES: dict[str, tuple[str, Any, str, Any, Agreement]] = {
    "lse-not-compared": ("last-lse", bits_and_limits, "differing", bits_of_o, bits),
    "lse-not-digested": ("last-lse", scoring, "row_digest", digest_of_o, bits),
    "ulps-across-zero": ("other-zero", bits_and_limits, "ulps", patterns, bits),
    "only-head-0-measured": (
        "both-far",
        measuring,
        "aggregates",
        first_head,
        accuracy,
    ),
    "float64-rounded": ("both-far", unit, "oracle_values", half_exact, accuracy),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_tool_disagrees(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of this net, as in ``test_the_net_sees``."""
    fault, place, name, by, agreement = CHANGES[change]
    monkeypatch.setattr(place, name, by)
    assert agreement(run(tmp_path, monkeypatch, fault)) != []
