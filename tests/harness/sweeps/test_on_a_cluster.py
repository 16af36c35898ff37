"""Real cells, in processes of their own: on two local nodes of Ray, and without Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from sweep_rows import swept

from kvparity.sweeps.reading import rows_in

SCRIPT = """\
import json, sys
import ray
from ray.cluster_utils import Cluster
from kvparity.cli.main import main

size = {"num_cpus": 1, "object_store_memory": 80 << 20}
cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
try:
    cluster.add_node(**size)
    line = ["sweep", "sweep.yaml", "--store", "on-ray", "--ray", cluster.address]
    codes = [main(line), main([*line, "--resume"])]
    codes += [main(["sweep", "gpu.yaml", "--store", "none", *line[4:], "--ray-wait", "1"])]
    print(json.dumps(codes))
finally:
    ray.shutdown()
    cluster.shutdown()
"""
ROOT = Path(__file__).parents[3]


@pytest.mark.cluster
@pytest.mark.slow
def test_cells_on_two_nodes_have_the_bits_of_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    one = f"version: 1\nname: some\ncontracts: [tiny.yaml]\nversions: [{{name: here, packages: " \
        f"{{transformers: {version('transformers')}}}}}]\n"  # fmt: skip
    (tmp_path / "gpu.yaml").write_text(one + "devices: [cuda]\n")
    (tmp_path / "local.yaml").write_text(one + "dtypes: [float32]\n")
    swept(tmp_path, one + "dtypes: [float32, bfloat16]\n")
    paths = [*(str(ROOT / name) for name in ("harness", "kernels", "contracts")), *sys.path]
    environ = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "RAY_AUTH_MODE": "disabled",
        "RAY_raylet_start_wait_time_s": "120",  # a machine that is busy starts nodes slowly
    }

    def run(*line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *line],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )

    local = run("-m", "kvparity", "sweep", "local.yaml", "--store", "local", "--jobs", "1")
    assert local.returncode == 0, local.stderr
    done = run("-c", SCRIPT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 0, 2], done.stderr
    assert done.stdout.count("in an earlier run") == 2
    assert "no node of the Ray cluster has 1 CPU and 1 GPU" in done.stderr
    found = rows_in(tmp_path / "on-ray")
    assert {row.dtype for row in found} == {"float32", "bfloat16"}
    assert {row.attempts for row in found} == {1}
    bits = {(row.cell, row.case_id, row.digest) for row in found if row.dtype == "float32"}
    here = {(row.cell, row.case_id, row.digest) for row in rows_in(tmp_path / "local")}
    assert bits == here
    assert None not in {digest for *_, digest in here}
