"""Answers that real servers gave, unedited: what they were read as.

Recorded from vLLM 0.32.0 and SGLang 0.5.23 on a CPU, with a seeded Qwen3 of 512 ids: three tokens
drawn at temperature 2 with the three likeliest of the first place, then their scoring.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kvparity.rollouts.anomalies import Anomaly
from kvparity.servers import sglang, vllm
from kvparity.servers.http import ServerAddress
from kvparity.servers.values import Draw
from kvparity_contracts.json_types import JsonObject, JsonValue

DATA = Path(__file__).parents[1] / "data/servers"
PROMPT = (3, 1, 4, 511, 5)


@pytest.mark.parametrize(
    ("module", "version"),
    [(vllm, "vllm-0.32.0"), (sglang, "sglang-0.5.23")],
    ids=["vllm", "sglang"],
)
def test_real_answers(module: object, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = json.loads((DATA / f"{version}.json").read_text())

    def post(at: ServerAddress, path: str, body: JsonObject) -> JsonValue:
        """The recorded answer to the same request."""
        (answer,) = (
            each["answer"]
            for each in recorded
            if (each["path"], each["request"]) == (path, dict(body))
        )
        return json.loads(json.dumps(answer))

    monkeypatch.setattr(module, "post", post)
    monkeypatch.setattr(module, "get", lambda at, path: {"version": version})
    at = ServerAddress("http://recorded")
    server = vllm.VllmServer(at, "m", 512) if module is vllm else sglang.SglangServer(at, "m", 512)
    drawn = server.generate(Draw(PROMPT, 3, 2.0, seed=7, top=3))
    scored = server.score((*PROMPT, *drawn.ids.tolist())).logprobs
    assert len(drawn.ids) == len(drawn.logprobs) == 3
    assert len(drawn.top) >= 3
    assert np.isfinite(scored[1:]).all()
    # Every number is a float32, and SGLang's last id is reported as another.
    assert server.anomalies.counts[Anomaly.ROUNDED] == 0
    assert server.anomalies.counts[Anomaly.REPLACED_ID] == (module is sglang)
    # vLLM's logprobs are the model's own; SGLang's follow the temperature.
    gap = np.abs(scored[-3:] - drawn.logprobs).max()
    assert (gap < 0.05) == (module is vllm), gap
