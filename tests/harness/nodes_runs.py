"""Verifications of the toy on nodes that stand in, and what they leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import node_stand_ins
import pytest
import toy_verification
from node_stand_ins import Change, Nodes
from toy import Toy
from toy_verification import BITS, NEAR

from kvparity.run.on_ray.machines import OnRay
from kvparity.run.on_ray.request import RayRequest
from kvparity.run.on_ray.sent import SentPart

LINES = ("cases.jsonl", "controls.jsonl", "paths.jsonl", "units.jsonl")
VARY = {"seconds", "elapsed_s", "place", "run_dir", "jobs"}
WORK = {
    "checks": [BITS, NEAR],
    "workloads": [
        {"name": "a", "prompt_tokens": [3, 5], "generate": 3},
        {"name": "b", "prompt_tokens": [4], "generate": 3},
        {"name": "c", "prompt_tokens": [6], "generate": 2},
    ],
}
OFF = Toy("batch-dependent")
ALONE = {"node-1": 1}
"""A cluster of one place."""


def verified(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    nodes: Nodes | None,
    *,
    request: RayRequest | None = None,
    resume: bool = False,
    subject: Toy = OFF,
    **work: Any,
) -> dict[str, Any]:
    """The report of a run on nodes; without any, here."""
    folder.mkdir(exist_ok=True)
    more: Any = {}
    if nodes is not None:
        node_stand_ins.stand_in(monkeypatch)
        more["pools"] = lambda loaded: OnRay(nodes, request or RayRequest(wait_s=0.0), loaded)
    work = WORK | work
    return toy_verification.verify(folder, monkeypatch, subject, resume=resume, **more, **work)


def lasting(value: Any) -> Any:
    """A value less times and places."""
    if isinstance(value, dict):
        return {key: lasting(each) for key, each in value.items() if key not in VARY}
    return [lasting(each) for each in value] if isinstance(value, list) else value


def left(run: Path) -> dict[str, Any]:
    """What a run folder holds, less times and places."""
    report = (run / "run.json").read_text().replace(str(run.parent), "")
    found: dict[str, Any] = {"run.json": lasting(json.loads(report))}
    for name in LINES:
        found[name] = sorted(json.dumps(lasting(each)) for each in lines(run, name))
    for file in run.rglob("*.safetensors"):
        found[str(file.relative_to(run))] = file.read_bytes()
    return found


def lines(run: Path, name: str) -> list[dict[str, Any]]:
    file = run / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def once(wanted: Callable[[SentPart], object]) -> Callable[[SentPart], bool]:
    """The first message that is wanted."""
    left = [True]
    return lambda part: bool(left and wanted(part) and left.pop())


def swapped(text: str, **fields: Any) -> str:
    return json.dumps(json.loads(text) | fields)


def each_line(change: Callable[[str, str], str | None]) -> Change:
    """Of every line what ``change`` gives for it, by its file."""

    def changed(worker: int, part: SentPart) -> SentPart:
        found = [(file, change(file, line)) for file, line in part.lines]
        return replace(part, lines=tuple((file, line) for file, line in found if line is not None))

    return changed


def again(change: Change) -> Change:
    """Of messages that have a line which came before."""
    seen: set[tuple[str, ...]] = set()

    def changed(worker: int, part: SentPart) -> SentPart:
        names = {name_of(file, line) for file, line in part.lines}
        old = names & seen
        seen.update(names)
        return change(worker, part) if old else part

    return changed


def name_of(file: str, line: str) -> tuple[str, ...]:
    """By what a line is known."""
    value = json.loads(line)
    return (file, *(str(value.get(key)) for key in ("id", "unit", "path", "name", "relation")))
