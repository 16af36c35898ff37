"""What a run of ci/engines found, as a table of rows and as the page docs/results/engines.md."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from kvparity_contracts.json_types import JsonObject, JsonValue

RESULTS = Path(__file__).resolve().parents[2] / "docs/results"


@dataclass(frozen=True)
class Row:
    """What one step found, or why it found nothing (``error``)."""

    session: str
    step: str
    verdict: str
    tokens: int = 0
    differing: int = 0
    mean_abs_d: float | None = None
    max_abs_d: float | None = None
    k3: float | None = None
    patterns: tuple[str, ...] = ()
    reason: str = ""
    error: str = ""


def versions(vllm: str, sglang: str, trl: str) -> JsonObject:
    """Of what is measured, and the processor."""
    words = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next((line.split(":")[1].strip() for line in words if "model name" in line), "unknown")
    return {"vllm": vllm, "sglang": sglang, "trl": trl, "cpu": cpu,
            "python": platform.python_version()}  # fmt: skip


def rows(found: JsonObject) -> Iterator[Row]:
    """One for each step; for a contract, one for each of its cases and controls.

    Raises:
        KeyError, TypeError: it is not what a run writes.
    """
    for session, entry in found.items():
        if session == "versions":
            continue
        for step, answer in _mapping(_mapping(entry)["steps"]).items():
            yield from _rows(session, step, _mapping(answer))


def _rows(session: str, step: str, answer: JsonObject) -> Iterator[Row]:
    if "error" in answer:
        yield Row(session, step, "not run", error=str(answer["error"]))
    elif step.startswith("sides-"):
        yield from _sides(session, step, answer)
    elif step == "contract":
        for check in _list(answer["checks"]):
            for each in _list(_mapping(check)["cases"]):
                case = _mapping(each)
                yield Row(
                    session, f"{case['path']} against {case['reference']}", str(case["verdict"]),
                    _count(case["tokens"]), _count(case["differing_tokens"]),
                    max_abs_d=_number(case["max_abs_dlogp"]), reason=str(case["reason"]),
                )  # fmt: skip
        yield _controls(session, "controls", answer)
    else:
        yield _drift(session, step, answer)


def _sides(session: str, step: str, answer: JsonObject) -> Iterator[Row]:
    """The row of a contract of two sides, and that of its controls."""
    (check,) = map(_mapping, _list(answer["checks"]))
    (case,) = map(_mapping, _list(check["cases"]))
    measured = _mapping(_mapping(case["parity"])["measured"])
    yield Row(
        session, step, str(check["verdict"]), _count(case["tokens"]),
        _count(case["differing_tokens"]), _number(measured["mean_abs_d"]),
        _number(measured["max_abs_d"]), _number(measured["k3"]), reason=str(check["reason"]),
    )  # fmt: skip
    yield _controls(session, f"{step} controls", answer)


def _controls(session: str, step: str, answer: JsonObject) -> Row:
    controls = [_mapping(each) for each in _list(answer["controls"])]
    caught = sum(bool(each["caught"]) for each in controls)
    words = f"{caught} of {len(controls)} planted defects caught"
    return Row(session, step, str(answer["verdict"]), reason=words)


def _drift(session: str, step: str, answer: JsonObject) -> Row:
    measured = _mapping(answer["metrics"])
    every = _mapping(measured["all"])
    tokens = _count(measured["tokens"])
    return Row(
        session, step, str(answer["verdict"]), tokens,
        tokens - round(float(str(measured["equal_bits"])) * tokens),
        _number(every["mean_abs_d"]), _number(every["max_abs_d"]), _number(every["k3"]),
        tuple(str(_mapping(each)["name"]) for each in _list(answer["patterns"])),
        str(answer["reason"]),
    )  # fmt: skip


def _mapping(value: JsonValue) -> JsonObject:
    if not isinstance(value, dict):
        raise TypeError(f"found {value!r}, expected an object")
    return value


def _list(value: JsonValue) -> list[JsonValue]:
    if not isinstance(value, list):
        raise TypeError(f"found {value!r}, expected a list")
    return value


def _count(value: JsonValue) -> int:
    return int(str(value))


def _number(value: JsonValue) -> float | None:
    return None if value is None else float(str(value))


INTRODUCTION = """\
# Real engines

Made by `ci/engines setup DIR`, `ci/engines run DIR --out OUT`, `ci/engines page OUT`; all rows are
in [engines.json](engines.json). {cpu}, vLLM {vllm}, SGLang {sglang}, TRL {trl}; servers in
bfloat16. *seeded*: a Qwen3 of random weights whose MLP has 3,072 columns. *smollm2*:
SmolLM2-135M-Instruct, a trained model. d is trainer − rollout; each row compares the recorded
logprobs of drawn tokens with the side that it names. Six prompts of 9 to 31 tokens draw 64 tokens
each; the contracts are the library's, with the server's address.

- `X against prefill`: a path of the library's contract, against the server's prefill of the same
  ids.
- `alone`, `together`: requests one at a time, or six at once, against the server's own prefill.
- `files`: as `alone`, from two files.
- `temperature-0.7`: drawn at temperature 0.7, against the server's prefill, which scores the
  model's own distribution.
- `bfloat16`, `bfloat16-eager`, `float32`: the recording of `alone` against transformers.
- `prefill-bfloat16` and so on: the server's prefill of the same tokens (`files`) against
  transformers.
- `sides-decode`, `sides-batched`: a contract of two sides with `bits: equal`; the server draws
  behind the same prompts, one at a time or all at once with two strangers, and scores. Of the
  seeded models 256 tokens each.
- `sides-trainer`: a contract of two sides with limits; the server draws all at once, and
  transformers in bfloat16 scores.
- `grpo`: what one step of TRL's GRPO trainer saw, with rollouts from the server.
"""


def page(found: list[Row], about: JsonObject) -> str:
    """The page's text."""
    words = INTRODUCTION.format(**about).splitlines()
    lines = [*words, "", "| server | step | verdict | tokens | differ in bits | mean abs(d) | "
             "max abs(d) | k3 | pattern |", "|---|---|---|--:|--:|--:|--:|--:|---|"]  # fmt: skip
    for row in found:
        if row.error:
            lines.append(f"| {row.session} | {row.step} | not run: {row.error} | | | | | | |")
            continue
        if row.step.endswith("controls"):
            lines.append(f"| {row.session} | {row.step} | {row.reason} | | | | | | |")
            continue
        numbers = (row.mean_abs_d, row.max_abs_d, row.k3)
        cells = ["" if each is None else f"{each:.2g}" for each in numbers]
        count = (f"{row.tokens}", f"{row.differing}") if row.tokens else ("", "")
        verdict = row.verdict if row.verdict != "void" else f"void: {row.reason}"
        parts = (row.session, row.step, verdict, *count, *cells, ", ".join(row.patterns))
        lines.append(f"| {' | '.join(parts)} |")
    return "\n".join(lines) + "\n"


def publish(found: JsonObject, folder: Path = RESULTS) -> None:
    """Write ``engines.json`` and the table of ``engines.md``; what stands below it stays."""
    about, every = _mapping(found["versions"]), list(rows(found))
    document = {"versions": about, "rows": [asdict(each) for each in every]}
    (folder / "engines.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    path = folder / "engines.md"
    _, mark, rest = path.read_text().partition("\n## ") if path.exists() else ("", "", "")
    path.write_text(page(every, about) + mark + rest, encoding="utf-8")
