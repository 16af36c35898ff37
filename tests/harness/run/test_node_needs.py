"""What a task asks of a node of Ray: as many GPUs and cores as the contract uses at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import toy

from kvparity.run.on_ray.cluster import Cluster
from kvparity.run.on_ray.machines import OnRay
from kvparity.run.on_ray.request import NodeNeed, RayRequest, need_of
from kvparity.run.worker import Job
from kvparity_contracts.loader import load

BITS = {"name": "bits", "relation": "invariance", "paths": ["decode"]}
MODEL: dict[str, Any] = {"kind": "transformers", "attention": "eager", "checkpoint": "model"}
RANKS = {"name": "ranks", "relation": "tp-invariance", "ranks": [1, 2], "reduce": "all_reduce"}
CUT = {"kind": "decoder", "preset": "tiny"}
NEEDS: dict[str, tuple[dict[str, Any], str, NodeNeed]] = {
    "a CPU": ({}, "cpu", NodeNeed()),
    "one GPU": ({}, "cuda", NodeNeed(gpus=1)),
    "a map of one": ({"subject": MODEL | {"device_map": {"": "cuda"}}}, "cuda", NodeNeed(gpus=1)),
    "a map of several": (
        {"subject": MODEL | {"device_map": {"": "cuda:1", "lm_head": "cuda:0"}}}, "cuda",
        NodeNeed(gpus=2),
    ),
    "the highest number": (
        {"subject": MODEL | {"device_map": {"": "cuda:0", "lm_head": "cuda:10"}}}, "cuda",
        NodeNeed(gpus=11),
    ),
    "a map of the CPU": ({"subject": MODEL | {"device_map": {"": "cpu"}}}, "cpu", NodeNeed()),
    "ranks on GPUs": ({"subject": CUT, "checks": [RANKS]}, "cuda", NodeNeed(gpus=2)),
    "ranks on a CPU": ({"subject": CUT, "checks": [RANKS]}, "cpu", NodeNeed(cpus=2)),
}  # fmt: skip


@pytest.mark.parametrize("name", NEEDS)
def test_a_task_asks_for_what_its_contract_uses(name: str) -> None:
    changes, device, need = NEEDS[name]
    contract = toy.contract(**{"controls": ["stale-slot"], "checks": [BITS]} | changes)
    assert need_of(device, None, contract) == need


def test_it_fits_where_one_node_has_all_of_it() -> None:
    need = NodeNeed(gpus=4, accelerator="H100")
    kind = {"accelerator_type:H100": 1.0}
    assert need.fits({"CPU": 8.0, "GPU": 8.0} | kind) == 2
    assert need.fits({"CPU": 8.0, "GPU": 3.0} | kind) == 0
    assert need.fits({"CPU": 8.0, "GPU": 8.0}) == 0
    assert str(need) == "1 CPU and 4 GPU of type H100"


def test_a_run_looks_for_nodes_that_have_what_its_contract_uses(tmp_path: Path) -> None:
    """A need that no node has is refused with its numbers, as every other one."""

    class Recording(Cluster):
        def places(self, need: NodeNeed) -> int:
            asked.append(need)
            return 1

    asked: list[NodeNeed] = []
    contract = toy.contract(subject=CUT, checks=[RANKS], controls=["stale-slot"])
    (tmp_path / "c.json").write_text(json.dumps(toy.document()))
    request = RayRequest(accelerator="H100")
    nodes = OnRay(Recording(""), request, load(tmp_path / "c.json"))
    nodes.jobs(Job(contract, tmp_path, "cuda", tmp_path), None)
    assert asked == [NodeNeed(gpus=2, accelerator="H100")]
