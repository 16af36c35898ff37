"""Runs the tool on raw tensors, and holds what it says against the independent scripts.

Each function returns the disagreements, in words: none where tool and script say the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cache_contents
import drift_numbers
import float64_accuracy
import logprob_bits
import numpy as np
import pytest
import row_bits
import toy
from played import GENERATED, INDEX, PROMPTS, STARTS, TEMPERATURES, Cached, Played, Tables
from safetensors.numpy import load_file

from kvparity.run import verify as verification
from kvparity.run import worker
from kvparity_contracts.loader import load

Raw = Mapping[str, np.ndarray]
BITS = {"name": "bits", "relation": "invariance", "paths": ["decode", "batched", "padded-left"]}
HELD = {"name": "held", "relation": "cache", "paths": ["decode"]}
SEED = 11
"""Of all tables: what agrees in one test parts in another for the change that it plants."""
TIGHT = {"max_abs_dlogp": 0.1}
"""What ``far_from_float64`` is over, and not by ten times."""


def exact(limits: Mapping[str, float]) -> dict[str, Any]:
    """An accuracy check with these limits."""
    return {"name": "exact", "relation": "accuracy", "paths": ["decode"], "limits": dict(limits)}


@dataclass(frozen=True)
class Ran:
    """A whole run: its report, its folder, and the drawn ids of every sequence."""

    report: Mapping[str, Any]
    folder: Path
    ids: tuple[tuple[int, ...], ...]

    def case(self, **wanted: Any) -> Mapping[str, Any]:
        """The one case of the report with these fields."""
        cases = [case for check in self.report["checks"] for case in check["cases"]]
        (found,) = [c for c in cases if all(c[name] == value for name, value in wanted.items())]
        return found

    def kept(self, case: Mapping[str, Any]) -> Raw:
        """The tensors that the run kept of a case."""
        return load_file(str(self.folder / case["evidence"]))

    @property
    def targets(self) -> np.ndarray:
        """The compared tokens of a language model, in the order of the rows."""
        return np.array([self.ids[s][p + 1] for s, p in INDEX])


def verify(folder: Path, document: Mapping[str, Any]) -> Ran:
    """``kvparity verify`` in this process, on a contract written to ``folder``."""
    file = folder / "contract.yaml"
    file.write_text(json.dumps(document))
    report = verification.verify(
        load(file),
        device="cpu",
        folder=folder / "run",
        jobs=1,
        resume=False,
        command="kvparity verify contract.yaml",
        progress=lambda *_: None,
    ).document()
    unit = json.loads((folder / "run/units.jsonl").read_text())
    return Ran(report, folder / "run", tuple(tuple(each["ids"]) for each in unit["sequences"]))


def play(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tables: Tables, *checks: Mapping[str, Any]
) -> Ran:
    """Verify a model that plays ``tables``."""
    subject = Played(tables)
    monkeypatch.setattr(worker, "factory", lambda kind: lambda model, **options: subject)
    monkeypatch.setattr(worker, "_subjects", {})
    whole = {
        "workloads": [{"name": "w", "prompts": [list(p) for p in PROMPTS], "generate": GENERATED}],
        "numerics": {"execution": "float32", "temperatures": list(TEMPERATURES)},
        "checks": list(checks),
        "controls": ["unequal-lengths"],
    }
    return verify(folder, toy.document(**whole))


def unlike(what: str, tool: Any, script: Any) -> list[str]:
    """One disagreement, or none; numbers and lists exactly."""
    return [] if tool == script else [f"{what}: the tool says {tool}, the script {script}"]


def bits(ran: Ran, tables: Tables, path: str) -> list[str]:
    """Logprobs and rows of ``path`` against prefill, at every temperature: verdict, counts, place,
    bits, and the evidence of what differs."""
    found = []
    left, right = (tables.rows[name].numpy() for name in ("prefill", path))
    rows = row_bits.answer({"rows": left}, {"rows": right})
    for column, temperature in enumerate(TEMPERATURES):
        case = ran.case(relation="invariance", path=path, temperature=temperature)
        sides = ({"logits": each, "targets": ran.targets} for each in (left, right))
        said = logprob_bits.answer(*sides, temperature=temperature)
        off = sorted({*said["rows"], *rows["differing"], *rows["nan"]})
        found += unlike("verdict", case["verdict"], "differs" if off else "holds")
        for name in ("tokens", "differing_tokens", "max_ulp"):
            found += unlike(name, case[name], said[name])
        found += unlike("rows", case["differing_rows"], len({*rows["differing"], *rows["nan"]}))
        first = case["first_divergence"]
        found += unlike("a first divergence", first is not None, bool(off))
        if first is None or not off:
            continue
        # NaN and Inf come before other differences.
        at = min({*said["unfinite"], *rows["nan"]} or off)
        sequence, position = INDEX[at]
        place = first["sequence"], first["position"], first["token"], first["column"]
        found += unlike(
            "place", place, (f"w/{sequence}", position + 1, int(ran.targets[at]), column)
        )
        if at == said["first"]:
            told = [first["reference_bits"], first["candidate_bits"]]
            found += unlike(
                "bits", *([nameless(each) for each in pair] for pair in (told, said["bits"]))
            )
        found += evidence(ran.kept(case), said["rows"], rows["differing"], column)
    return found


def nameless(pattern: str) -> str:
    """Which NaN an operation gives is its library's business."""
    return "NaN" if int(pattern, 16) & 0x7FFFFFFF > 0x7F800000 else pattern


def evidence(kept: Raw, tokens: Sequence[int], rows: Sequence[int], column: int) -> list[str]:
    """The values and digests that a run kept differ just where the raw tensors do."""
    values = [kept[f"{side}.values"][:, column] for side in ("reference", "candidate")]
    bad = ~np.isfinite(values[0])
    off = np.flatnonzero((values[0].view(np.uint32) != values[1].view(np.uint32)) | bad)
    digests = np.flatnonzero(kept["reference.digests"] != kept["candidate.digests"])
    return unlike("kept values", off.tolist(), tokens) + unlike(
        "kept digests", digests.tolist(), list(rows)
    )


def drift(ran: Ran, tables: Tables, path: str) -> list[str]:
    """The numbers of the tokens that both sides have; prefill scores what ``path`` drew."""
    found = []
    for temperature in TEMPERATURES:
        case = ran.case(relation="invariance", path=path, temperature=temperature)
        sides = [
            logprob_bits.scored(
                {"logits": tables.rows[name].numpy(), "targets": ran.targets}, temperature
            )
            for name in (path, "prefill")
        ]
        finite = np.isfinite(sides[0]) & np.isfinite(sides[1])
        said = drift_numbers.answer(*(side[finite].tolist() for side in sides))
        found += unlike("rollout", (case["rollout"], case["trainer"]), (path, "prefill"))
        found += numbers(case, said)
    return found


def numbers(case: Mapping[str, Any], said: Mapping[str, Any]) -> list[str]:
    """Exactly, but for a mean, which float64 rounds.

    Of expm1(d) - d each term is off by two roundings of something as large as |d|, and as many
    additions as there are tokens round the sum: in units of 2**-53 at most 4 times the mean of |d|
    and, of the sum, the number of tokens.
    """
    found = unlike("max_abs_dlogp", case["max_abs_dlogp"], said["max_abs_dlogp"])
    found += unlike("clipfrac0", case["clipfrac0"], said["clipfrac0"])
    room = 2.0**-53 * (4 * said["mean_abs"] + (said["tokens"] + 4) * said["approx_kl0"])
    if not abs(case["approx_kl0"] - said["approx_kl0"]) <= room:
        found += unlike("approx_kl0", case["approx_kl0"], said["approx_kl0"])
    return found


ROUNDED = 2.0**-48
"""Two float64 sums over some tens of numbers of size 1 to 30, in another order."""


class Measured(NamedTuple):
    """What the script says of decode against float64, and both sides' logprobs."""

    said: Mapping[str, Any]
    found: np.ndarray
    exact: np.ndarray


def measured(ran: Ran, tables: Tables, temperature: float) -> Measured:
    """Decode against float64, by the script."""
    rows, targets = tables.rows["decode"].numpy(), ran.targets
    found = logprob_bits.scored({"logits": rows, "targets": targets}, temperature)
    exact = {"logits": tables.exact.numpy(), "targets": targets}
    said = float64_accuracy.answer({"logprobs": found}, exact, temperature)
    return Measured(said, found, float64_accuracy.exact_logprobs(exact, temperature))


def accuracy(ran: Ran, tables: Tables, limits: Mapping[str, float]) -> list[str]:
    """A path against float64: verdict by the limits, numbers, the worst token, what is kept."""
    found = []
    for temperature in TEMPERATURES:
        case = ran.case(relation="accuracy", path="decode", temperature=temperature)
        said, values, wanted = measured(ran, tables, temperature)
        over = any(said[name] > limit for name, limit in limits.items())
        found += unlike("verdict", case["verdict"], "differs" if over else "holds")
        found += unlike("tokens", case["tokens"], said["tokens"])
        found += unlike("clipfrac0", case["clipfrac0"], said["clipfrac0"])
        for name in ("max_abs_dlogp", "approx_kl0"):
            if not abs(case[name] - said[name]) <= ROUNDED:
                found += unlike(name, case[name], said[name])
        sequence, position = INDEX[said["worst"]]
        worst = case["accuracy"]["worst"]
        if not abs(worst["error"] - said["max_abs_dlogp"]) <= ROUNDED:
            found += unlike("error of the worst", worst["error"], said["max_abs_dlogp"])
        found += unlike("worst", (worst["sequence"], worst["position"]),
                        (f"w/{sequence}", position + 1))  # fmt: skip
        kept = ran.kept(case)
        found += unlike("kept values", kept["value"].tolist(), values.tolist())
        if not np.abs(kept["exact"] - wanted).max() <= ROUNDED:
            found += unlike("kept float64", kept["exact"].tolist(), wanted.tolist())
    return found


def contents(ran: Ran, tables: Tables, path: str) -> list[str]:
    """What a cache holds: first each side against what was written there, then side by side."""
    case = ran.case(relation="cache", path=path)
    sides = ("prefill", path)
    alone = [
        cache_contents.answer(tables.written[name].raw(), tables.held[name].raw()) for name in sides
    ]
    between = cache_contents.answer(*(tables.held[name].raw() for name in sides))
    wrong = [each for each in alone if not each["equal"]]
    said = wrong[0] if wrong else between
    off = bool(wrong) or between["differing"] > 0
    found = unlike("verdict", case["verdict"], "differs" if off else "holds")
    if not wrong:
        found += unlike("compared", case["cache"]["compared"], said["compared"])
    if not off or case["verdict"] != "differs":
        return found
    sides_told = ["written", "read"] if wrong else None
    found += unlike("sides", case["cache"].get("sides"), sides_told)
    lost = said["missing"] or said["extra"] if wrong else []
    places = [position for position, _ in lost] if lost else [each[0] for each in said["places"]]
    found += unlike("positions", case["differing_tokens"], len(set(places)))
    if not lost:
        found += unlike("first", _told(case["first_divergence"]), _place(said["first"]))
    return found + _digests(ran.kept(case), tables, sides)


def _told(first: Mapping[str, Any] | None) -> Any:
    if first is None:
        return None
    bits = [first["reference_bits"], first["candidate_bits"]]
    return first["sequence"], *(first[n] for n in ("position", "layer", "part", "column")), bits


def _place(first: Mapping[str, Any]) -> Any:
    """The same of a script's answer: the sequence of a position, and an element by head."""
    sequence = max(s for s, start in enumerate(STARTS) if start <= first["position"])
    column = first["head"] * 2 + first["dim"]
    place = first["position"] - STARTS[sequence], first["layer"], first["part"], column
    return f"w/{sequence}", *place, first["bits"]


def _digests(kept: Raw, tables: Tables, sides: Sequence[str]) -> list[str]:
    """Digests that a run kept differ at just those places at which the raw tensors do."""
    reference, candidate = (tables.held[name] for name in sides)
    pairs: list[tuple[str, str, Cached, Cached]] = [
        ("reference.held", "candidate.held", reference, candidate),
        ("reference.written", "reference.held", tables.written["prefill"], reference),
        ("candidate.written", "candidate.held", tables.written[sides[1]], candidate),
    ]
    found = []
    for one, other, left, right in pairs:
        there = kept[f"{other.partition('.')[0]}.is_held"] & left.there.numpy()
        off = np.argwhere((kept[one] != kept[other]) & there[..., None])
        told = sorted([int(p), int(layer), "kv"[part]] for layer, p, part in off)
        said = cache_contents.answer(left.raw(), right.raw())["places"]
        found += unlike(f"{one} and {other}", told, sorted(said))
    return found
