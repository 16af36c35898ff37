"""What a case of each relation has of its own."""

from __future__ import annotations

from typing import Any

from run_documents import DIVERGENCE, case

LIMITS = {"max_abs_dlogp": 0.5, "clipfrac0": 0.0}
KEY = {"sequence": "w/0", "row": 4, "layer": 0, "head": 0, "position": 1}
BROKEN = {"invariant": "x", "step": 0, "sequence": "w/0", "place": 1, "layer": None, "sentence": ""}
SIDE = {"kind": "recorded", "name": "a", "about": "b", "fingerprint": None, "flags": {}}
RANKS = {
    "ranks": 2, "path": "decode", "differing_tokens": 0, "differing_rows": 0, "unlike_ranks": [],
    "collectives": [
        {"operator": "allgather_", "ranks": 2, "dtype": "float32", "times": 6, "bytes": 96},
    ],
}  # fmt: skip
PLACE = {"node": "a", "process": 1, "device": "cpu", "uuid": None, "versions": {"torch": "2"}}
DETAILS: dict[str, dict[str, Any]] = {
    "invariance": {},
    "accuracy": {"limits": LIMITS, "first": None, "worst": None},
    "cache": {"layers": 2, "compared": 8, "differing": 0},
    "liveness": {
        "probes": 4, "visible": 2, "dead": [], "wrongly_alive": [], "unseen_layers": [],
    },
    "trace": {
        "layers": 2, "judged": {"x": 3}, "broken": [], "weight_sum_ulps": 1.0,
        "weight_sum_bound_ulps": 2.0, "largest_out_ratio": "inf",
    },
    "order": {
        "keys": 65, "prefill_rows": 1, "batch": 1, "verdict": "consistent", "reason": "so",
        "subject": {}, "parts": [], "replay": [], "random_calls": {}, "adder": "", "first_key": 0,
        "notes": [], "kernels": {},
    },
    "audit": {"architecture": "sm_90", "verdict": "same", "pairs": []},
    "parity": {
        "limits": {"k3": 0.5}, "measured": {"k3": 0.5}, "ids": "given in a",
        "rollout": SIDE, "trainer": SIDE, "sequences": 1, "unmatched": 0, "allowed": 0,
        "found": [], "worst": None,
    },
    "tp-invariance": {
        "reduce": "fixed", "row_blocks": 4, "found": [RANKS], "first": None,
    },
    "reproduction": {"runs": [PLACE, PLACE | {"process": 2}]},
}  # fmt: skip


def line(relation: str, verdict: str, details: dict[str, Any] | None = None, **more: Any) -> Any:
    """What a case of ``relation`` with this verdict may look like."""
    found = case(relation=relation, verdict=verdict, max_abs_dlogp=0.5)
    if verdict == "differs":
        found |= {"differing_rows": 1, "first_divergence": DIVERGENCE}
    if relation != "invariance":
        found |= {relation: DETAILS[relation] | (details or {})}
    elif details is not None:
        found |= {relation: details}
    return found | more
