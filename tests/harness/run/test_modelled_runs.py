"""Runs under the model of a device: in force from the contract to a replay, or void."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvparity.cli.main import main
from kvparity.core.errors import UnsupportedError
from kvparity.core.exit_codes import ExitCode
from kvparity.plan.kernel_cases import all_numerics
from kvparity.run import worker
from kvparity.run.device_switch import require_cpu, with_device
from kvparity.run.replay import replay
from kvparity_contracts.contract import Contract
from kvparity_contracts.files import load_whole
from kvparity_contracts.loader import load
from kvparity_kernels import device_model

NAIVE = Path(__file__).parents[1] / "naive_pair.py"


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    assert device_model.in_force() is None


MODEL = {
    "vocab_size": 128, "hidden_size": 32, "intermediate_size": 16, "layers": 1, "heads": 2,
    "kv_heads": 1, "head_dim": 16, "max_positions": 16,
}  # fmt: skip
ORDER = {"split": 16, "tile": 16, "block_m": 16}
DECODER = {"kind": "decoder", "config": MODEL, "attention": "fixed-order", "order": ORDER}
PAIR = {
    "kind": "attention", "prefill": f"{NAIVE}:prefill", "decode": f"{NAIVE}:decode",
    "heads": {"query": 2, "kv": 1, "dim": 4},
}  # fmt: skip


def contract(folder: Path, subject: dict[str, Any], **numerics: Any) -> Path:
    document = {
        "version": 1,
        "name": "modelled",
        "subject": subject,
        "numerics": {"execution": "bfloat16"} | numerics,
        "workloads": [{"name": "short", "prompt_tokens": [3], "generate": 3}],
        "checks": [{"name": "bits", "relation": "invariance", "paths": ["decode"]}],
        "controls": ["other-instruction"] if "device" in numerics else ["stale-slot"],
    }
    path = folder / "contract.json"
    path.write_text(json.dumps(document))
    return path


def verify(path: Path, *more: str) -> int:
    run = str(path.parent / "run")
    return main(["verify", str(path), "--jobs", "1", "--device", "cpu", "--run-dir", run, *more])


def told(path: Path) -> Any:
    return json.loads((path.parent / "run/run.json").read_text())


def test_a_run_is_under_the_model_to_its_replay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = contract(tmp_path, DECODER, device="sm_90")
    assert verify(path) == ExitCode.HOLDS
    assert "under the model of sm_90's products" in capsys.readouterr().out
    report = told(path)
    assert report["environment"]["numerics_device"] == "sm_90"
    assert [case["device"] for each in report["checks"] for case in each["cases"]] == ["sm_90"]
    (caught,) = report["controls"]
    assert caught["caught"]
    assert caught["numerics"]["device"] == "sm_90"
    (unit,) = map(json.loads, (tmp_path / "run/units.jsonl").read_text().splitlines())
    counts = [each["products of sm_90 bfloat16"] for each in unit["observed"].values()]
    assert len(counts) == 2
    assert min(counts) > 0
    assert replay(load_whole(path), tmp_path / "run", "c000", "cpu").same


def test_as_is_what_the_contract_would_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = contract(tmp_path, DECODER)
    assert verify(path, "--as", "sm_80") == ExitCode.HOLDS
    assert told(path)["environment"]["numerics_device"] == "sm_80"
    assert verify(path, "--as", "sm_90", "--resume") == ExitCode.USAGE
    assert "numerics_device changed since it began" in capsys.readouterr().err
    assert replay(load_whole(path), tmp_path / "run", "c000", "cpu").same


def test_a_pair_in_plain_torch_is_void(tmp_path: Path) -> None:
    path = contract(tmp_path, PAIR)
    assert verify(path, "--as", "sm_90") == ExitCode.VOID
    (check,) = told(path)["checks"]
    assert "took torch's own sum" in check["reason"]


def test_another_device_than_the_contract_states_is_refused(tmp_path: Path) -> None:
    stated = load(contract(tmp_path, DECODER, device="sm_90"))
    assert with_device(stated, "sm_90") is with_device(stated, None) is stated
    with pytest.raises(ValueError, match=r"states numerics\.device: sm_90, and sm_80 was asked"):
        with_device(stated, "sm_80")
    with pytest.raises(UnsupportedError, match="modelled on a CPU alone, and the run is on cuda"):
        require_cpu(stated.contract, "cuda")
    job = worker.Job(stated.contract, tmp_path, "cuda", tmp_path)  # as traces and codecs begin
    with pytest.raises(UnsupportedError, match="the run is on cuda"):
        worker.subject_of(job, all_numerics(stated.contract)[0])
    require_cpu(load(contract(tmp_path, DECODER)).contract, "cuda")


def test_a_server_has_a_device_of_its_own() -> None:
    subject = {"kind": "server", "api": "vllm", "url": "http://localhost:1", "vocabulary": 9}
    document = {
        "version": 1, "name": "served", "subject": subject,
        "numerics": {"execution": "bfloat16", "device": "sm_90"},
        "workloads": [{"name": "w", "prompts": [[1, 2]], "generate": 2}],
        "checks": [{"name": "bits", "relation": "invariance", "paths": ["decode"]}],
        "controls": ["retokenised"],
    }  # fmt: skip
    with pytest.raises(ValueError, match="the server computes on a device of its own"):
        Contract.model_validate(document)
