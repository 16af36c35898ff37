"""Contracts of two sides, as tests write them: recordings, tiny models and the stand-in server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gaps import tiny
from server_stand_in import StandIn, serving

from kvparity.rollouts import RolloutWriter, read_rollouts
from kvparity.servers.connect import connect
from kvparity.servers.http import ServerAddress

BITS = {"bits": "equal"}
NEAR = {"limits": {"mean_abs_d": 0.05}}
TIGHT = {"limits": {"max_abs_d": 1e-5}}
PROMPTS = [{"name": "w", "prompts": [[5, 9, 2], [7, 1, 3, 3]], "generate": 6}]
FILE = {"kind": "recorded", "file": "ids.jsonl"}
SCORED = {"kind": "recorded", "file": "scored.jsonl"}
MODEL = {"kind": "model", "checkpoint": "model"}
PADDED = MODEL | {"layout": "right", "micro_batch": 3}
SINGLE = MODEL | {"dtype": "float32"}
OTHER = {"kind": "model", "checkpoint": "other"}
WIDE = {"kind": "model", "checkpoint": "wide"}
SERVER = {"kind": "server", "api": "vllm", "vocabulary": 256, "timeout": 5.0}
BATCHED = SERVER | {"path": "batched"}
GIVEN = {"tokens": "ids.jsonl"}


def made(base: Path) -> Path:
    """Two checkpoints, what the first one drew, and what the stand-in gives these tokens."""
    tiny.checkpoint(base / "other", seed=1)
    tiny.checkpoint(base / "wide", vocabulary=256)
    tiny.rollout(tiny.checkpoint(base / "model"), base / "ids.jsonl")
    with serving(StandIn()) as stand_in, RolloutWriter(base / "scored.jsonl") as writer:
        server = connect(ServerAddress(stand_in.url))
        for each in read_rollouts(base / "ids.jsonl"):
            assert each.ids is not None
            assert each.prompt_ids is not None
            values = server.score(each.ids.tolist()).logprobs[each.prompt_ids.size :]
            writer.write(
                each.prompt_ids.tolist(), each.ids[each.prompt_ids.size :].tolist(), values
            )
    return base


def written(
    folder: Path, url: str, check: dict[str, Any], subject: dict[str, Any], **more: Any
) -> Path:
    at = {"url": url}
    sides = {
        key: at | side if isinstance(side, dict) and side["kind"] == "server" else side
        for key, side in subject.items()
    }
    own = isinstance(sides["rollout"], dict) and sides["rollout"]["kind"] == "recorded"
    document = {
        "version": 1,
        "name": "sides",
        "seed": 3,
        "subject": {"kind": "sides", **sides},
        **({} if own or "tokens" in sides else {"workloads": PROMPTS}),
        "checks": [{"name": "alike", "relation": "parity", **check}],
        **more,
    }
    document = {key: value for key, value in document.items() if value is not None}
    file = folder / "c.yaml"
    file.write_text(json.dumps(document, indent=1))
    return file
