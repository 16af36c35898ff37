"""The library contracts that a CPU can run, through the command line, as a user runs them.

The one that the README shows starts new interpreters; the others are copies of one that is warm.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch
from conforming import findings
from transformers import AutoConfig, AutoModelForCausalLM
from warm import Warm

from kvparity.core.exit_codes import ExitCode
from kvparity_contracts.library import find
from kvparity_contracts.loader import load

PLAIN = runpy.run_path(str(Path(__file__).parents[1] / "plain_transformers.py"))


def verify(name: str, run: Path, warm: Warm, jobs: int = 1) -> tuple[int, dict]:
    arguments = ["verify", name, "--json", "--run-dir", str(run), "--jobs", str(jobs)]
    done = warm.run(*arguments, "--no-locate", jobs=jobs)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout, done.stderr
    assert list(findings(run)) == []
    return done.returncode, json.loads(done.stdout)


def test_smoke_holds_on_every_workload_and_path(tmp_path, warm):
    code, report = verify("smoke", tmp_path / "run", warm, jobs=2)
    assert code == ExitCode.HOLDS, report
    assert report["verdict"] == "holds"
    contract = load(find("smoke")).contract
    assert {w.name for w in contract.workloads} == {"short", "long", "varlen", "padded"}
    formats = [e for e, _ in contract.numerics.formats()]
    assert set(formats) == {"float32", "bfloat16"}
    assert [found["verdict"] for found in report["checks"]] == ["holds"] * len(contract.checks)
    *paths, order = report["checks"]
    for check, found in zip(contract.path_checks, paths, strict=True):
        assert found["omitted"] == []
        wanted = {
            (str(path), workload.name, dtype, temperature)
            for workload in contract.workloads_of(check)
            for path in contract.paths_of(check, workload)
            for dtype in formats
            for temperature in (1.0, 0.7)
        }
        cases = found["cases"]
        shown = {(c["path"], c["workload"], c["dtype"], c["temperature"]) for c in cases}
        assert shown == wanted
        size = {w.name: w.generate * len(w.lengths()) for w in contract.workloads}
        for case in cases:
            assert case["tokens"] == size[case["workload"]]
            if case["relation"] == "invariance":
                assert (case["differing_tokens"], case["differing_rows"]) == (0, 0)
    kinds = {c["path"].partition("(")[0] for found in paths for c in found["cases"]}
    assert kinds >= {
        "prefill", "decode", "chunked", "batched", "permuted", "mixed", "paged",
        "padded-left", "padded-right",
    }  # fmt: skip
    (certificate,) = order["cases"]
    assert (order["relation"], certificate["order"]["keys"]) == ("order", 65)
    assert certificate["order"]["prefill_rows"] == 65
    assert {part["status"] for part in certificate["order"]["parts"]} == {"same"}
    assert certificate["reason"].startswith("consistent: 5 of 5 parts are the same")
    assert {c["name"] for c in report["controls"] if c["caught"]} == set(contract.controls)
    assert all(c["caught"] for c in report["controls"])
    assert report["unplanted"] == []
    assert report["environment"]["triton_mode"] == "interpreter"
    assert {"attention.prefill", "attention.decode_split", "attention.decode_combine"} <= set(
        report["kernels"]
    )


@pytest.mark.slow
def test_smoke_holds_under_the_model_of_a_device(tmp_path, warm):
    code, report = verify("smoke-sm_90", tmp_path / "run", warm, jobs=2)
    assert code == ExitCode.HOLDS, report
    assert report["environment"]["numerics_device"] == "sm_90"
    assert {case["device"] for each in report["checks"] for case in each["cases"]} == {"sm_90"}
    caught = {each["name"] for each in report["controls"] if each["caught"]}
    assert caught == set(load(find("smoke-sm_90")).contract.controls)
    assert report["unplanted"] == []


@pytest.mark.compile
def test_the_compiled_kernels_are_the_same_for_three_architectures(tmp_path, monkeypatch, warm):
    monkeypatch.setenv("KVPARITY_AUDIT_CACHE", str(tmp_path / "compiled"))
    code, report = verify("fixed-order-audit", tmp_path / "run", warm)
    assert code == ExitCode.HOLDS, report
    by_model, audit, *others = report["checks"]
    (case,) = by_model["cases"]
    assert (case["verdict"], case["audit"]["verdict"]) == ("holds", "equal by model")
    assert "wgmma on sm_90: L 16, F 25, e_zero -133; mma.sync on sm_90: L 16" in case["reason"]
    assert case["reason"].endswith("settled on a device: not measured)")
    assert [found["verdict"] for found in others] == ["holds"] * 2
    cases = {case["audit"]["architecture"]: case for case in audit["cases"]}
    assert list(cases) == ["sm_80", "sm_90", "sm_100"]
    for arch, case in cases.items():
        (pair,) = case["audit"]["pairs"]
        assert (pair["arch"], pair["left"], pair["right"]) == (arch, "prefill", "decode")
        assert {each["verdict"] for each in pair["fields"]} == {"same"}
        assert (case["verdict"], case["workload"], case["tokens"]) == ("holds", None, 0)
    caught = {(c["name"], c["relation"]): c["caught"] for c in report["controls"]}
    assert caught[("other-tile", "audit")]
    assert caught[("other-warps", "audit")]
    assert caught[("other-architecture", "audit")]
    assert all(caught.values())


def plain_counts(name: str, run: Path) -> tuple[int, int, float]:
    """What a few lines of plain transformers find on the same tokens, kvparity left out."""
    subject = load(find(name)).contract.subject
    config = dict(subject.config)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(config.pop("model_type"), **config),
        attn_implementation=subject.attention,
        dtype=torch.bfloat16,
    ).eval()
    unit = json.loads((run / "units.jsonl").read_text().splitlines()[0])
    ids = [(s["ids"][: s["prompt"]], s["ids"][s["prompt"] :]) for s in unit["sequences"]]
    return PLAIN["generate_and_rescore"](model, [p for p, _ in ids], [c for _, c in ids])


@pytest.mark.parametrize("name", ["transformers-qwen3-sdpa", "transformers-qwen3-eager"])
def test_transformers_contracts_find_what_plain_code_finds(tmp_path, name, warm, third_party):
    if name.endswith("sdpa"):
        run = third_party / "run"
        code = int((third_party / "code").read_text())
        report = json.loads((run / "run.json").read_text())
    else:
        run = tmp_path / "run"
        code, report = verify(name, run, warm)
    case = report["checks"][0]["cases"][0]
    assert (case["path"], case["temperature"]) == ("generate", 1.0)
    tokens, rows, largest = plain_counts(name, run)
    assert (case["differing_tokens"], case["differing_rows"]) == (tokens, rows)
    assert case["max_abs_dlogp"] == largest
    assert code == (ExitCode.DIFFERS if rows else ExitCode.HOLDS)
    if name.endswith("sdpa"):
        # torch's CPU flash attention reduces a lone query in another order than a block of them.
        assert tokens > 0
        first = case["first_divergence"]
        assert first["reference_bits"] != first["candidate_bits"]
        assert len(first["reference_bits"]) == len("0x00000000")
        assert first["sequence"].startswith("prompts/")
        assert first["token"] is not None
    assert {c["name"] for c in report["controls"] if not c["caught"]} == set()


@pytest.mark.slow
def test_transformers_with_fixed_order_attention(tmp_path, warm):
    """Its linear layers are torch's: equal bits are this CPU's answer, and plain eager's too."""
    code, report = verify("transformers-qwen3-fixed-order", tmp_path / "run", warm)
    assert {c["name"] for c in report["controls"] if not c["caught"]} == set()
    assert report["subject"]["used"]["attention"] == "kvparity"
    assert "attention.decode_combine" in report["kernels"]
    assert code == ExitCode.HOLDS, report["checks"][0]["reason"]


@pytest.mark.slow
def test_transformers_in_fixed_order_holds_in_float32(tmp_path, warm):
    """Nothing of torch's order is left, so here equal bits are no chance of this CPU."""
    code, report = verify("transformers-qwen3-invariant", tmp_path / "run", warm)
    assert code == ExitCode.HOLDS, report["checks"][0]["reason"]
    assert {c["name"] for c in report["controls"] if not c["caught"]} == set()
    assert report["subject"]["dtype"] == "float32"
    used = {"attention": "eager", "devices": {"": "cpu"}, "invariant": True}
    assert report["subject"]["used"] == used
    assert {"linear", "bmm", "_softmax", "mean.dim"} <= set(report["subject"]["invariant"])


@pytest.mark.slow
def test_a_decoder_of_torch_differs_and_says_which_backend_ran(tmp_path, warm):
    """How many rows differ is the processor's; what is compared, and what ran, is not."""
    code, report = verify("decoder-sdpa", tmp_path / "run", warm)
    bits, near = report["checks"]
    assert code == {"differs": ExitCode.DIFFERS, "holds": ExitCode.HOLDS}[bits["verdict"]]
    assert near["verdict"] == "holds"
    assert all(c["caught"] for c in report["controls"])
    assert report["unplanted"] == []
    subject = report["subject"]
    assert subject["requested"] == subject["used"] == {"attention": "sdpa", "operations": "torch"}
    assert set(subject["backends"]) <= {"sdpa-flash", "sdpa-math"}
    assert subject["order"] is None
    for case in bits["cases"]:
        assert case["tokens"] == 8 * (2 if case["workload"] == "short" else 3)


def test_without_a_device_flashinfer_is_an_error(tmp_path, warm):
    asked = ["verify", "decoder-flashinfer", "--device", "cpu", "--json", "--jobs", "1"]
    done = warm.run(*asked, "--run-dir", str(tmp_path / "run"))
    assert done.returncode == ExitCode.ERROR
    told = json.loads(done.stdout)["error"]
    assert told.endswith("FlashInfer computes on CUDA only, and the tensors are on cpu")
    place = "rollout by decode over long in float16"
    assert told.startswith(f"error: {place}: flashinfer-fixed (q [1022, 8, 64], ")
    assert "Traceback" not in done.stderr
