"""Faults that both kernels of a pair share: seen by a limit, or said to be unseen by it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from few import few
from run_documents import rendered
from torch import Tensor

from kvparity.controls.reach import reaches
from kvparity.controls.semantics import PLANTED, ROWS
from kvparity.plan.cases import make
from kvparity.plan.schedule import Member
from kvparity.record.path_run import Setting
from kvparity.run import verify as verification
from kvparity.run.control_run import plant
from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.pair.exact import exact, exact_pair, in_format, rounded
from kvparity.subjects.pair.subject import AttentionSubject, build
from kvparity.subjects.registry import factory
from kvparity_contracts.faint import faint, rounding
from kvparity_contracts.loader import load
from kvparity_contracts.subjects import Attention

PAIRS = Path(__file__).parents[1] / "semantic_pairs.py"
HEADS = {"query": 6, "kv": 2, "dim": 8}
BITS = {"name": "bits", "relation": "invariance", "paths": ["decode"]}
CAP, WINDOW = {"softcap": 3.0}, {"window": 16}


def verify(folder: Path, fault: str = "", *, limits: Any, **changes: Any) -> dict[str, Any]:
    """The report of a pair that is right (no fault) or has one on both sides."""
    subject = {
        "kind": "attention",
        "prefill": f"{PAIRS}:prefill{fault}",
        "decode": f"{PAIRS}:decode{fault}",
        "heads": HEADS,
        "queries": "normal",
    }
    checks = [BITS, {"name": "near", "relation": "accuracy", "limits": limits}]
    whole = {
        "version": 1,
        "name": "shared",
        "subject": {k: v for k, v in (subject | changes.pop("subject", {})).items() if v},
        "numerics": {"execution": changes.pop("execution", "bfloat16")},
        "workloads": [
            {"name": "w", "prompt_tokens": changes.pop("prompts", [5, 30]), "generate": 3}
        ],
        "checks": [*checks, *changes.pop("more", [])],
        "controls": "all",
    }
    folder.mkdir(exist_ok=True)
    file = folder / "contract.yaml"
    file.write_text(json.dumps(whole))
    return verification.verify(
        load(file), device="cpu", folder=folder / f"run{len(list(folder.iterdir()))}", jobs=1,
        resume=False, command="", progress=lambda *_: None,
    ).document()  # fmt: skip


def near(report: dict[str, Any]) -> tuple[str, str]:
    check = next(each for each in report["checks"] if each["relation"] == "accuracy")
    return check["verdict"], check["reason"]


def control(report: dict[str, Any], name: str, relation: str = "accuracy") -> dict[str, Any]:
    found = {(each["name"], each["relation"]): each for each in report["controls"]}
    return found[name, relation]


@pytest.mark.parametrize(
    ("fault", "name", "subject", "loose"),
    [
        ("_uncapped", "softcap-ignored", CAP, 2.0),
        ("_longer", "window-one-long", WINDOW, 0.8),
    ],
)
def test_a_limit_that_cannot_see_a_shared_fault_is_void_and_names_one_that_can(
    tmp_path: Path, fault: str, name: str, subject: dict[str, Any], loose: float
) -> None:
    right = verify(tmp_path, limits={"max_abs": loose}, subject=subject)
    wrong = verify(tmp_path, fault, limits={"max_abs": loose}, subject=subject)
    for report in (right, wrong):
        assert report["verdict"] == "void"
        verdict, reason = near(report)
        assert verdict == "void"
        assert reason.startswith(f"its limits cannot see {name}, which measures max_abs ")
        assert f" of {loose:g} allowed in bfloat16; exact rows rounded to bfloat16 meas" in reason
        assert not control(report, name)["caught"]
        assert f"{name}       MISSED"[:20] in rendered(report)
    # It is measured alone: whether the pair has the fault itself makes no difference.
    assert control(right, name)["reach"] == control(wrong, name)["reach"]
    told = re.search(r": a limit of (\S+) tells them apart", near(right)[1])
    assert told is not None
    limit = {"max_abs": float(told.group(1))}
    found = verify(tmp_path, limits=limit, subject=subject)
    assert (found["verdict"], control(found, name)["caught"]) == ("holds", True)
    assert near(verify(tmp_path, fault, limits=limit, subject=subject))[0] == "differs"


@pytest.mark.parametrize(
    ("fault", "prompts", "subject"),
    few([("_uncapped", [62, 255], {"softcap": 50.0}), ("_longer", [511], {"window": 512})], 1),
)
def test_faint_faults_of_reported_sizes_are_never_green(
    tmp_path: Path, fault: str, prompts: list[int], subject: dict[str, Any]
) -> None:
    """Softcap 50 and windows of 512 under a limit of 2e-2, over whatever data a pair gets."""
    heads = {"heads": {"query": 6, "kv": 2, "dim": 16}, "queries": None}
    report = verify(
        tmp_path, fault, limits={"max_abs": 2e-2}, subject=heads | subject, prompts=prompts
    )
    (bits, close) = report["checks"]
    assert bits["verdict"] == "holds"  # both sides agree
    assert close["verdict"] in ("differs", "void")


def test_another_relation_may_see_what_no_limit_of_the_contract_does(tmp_path: Path) -> None:
    live = {"name": "live", "relation": "liveness"}
    loose: dict[str, Any] = {"limits": {"max_abs": 0.8}, "subject": WINDOW, "more": [live]}
    right = verify(tmp_path, **loose)
    assert control(right, "window-one-long", "liveness")["caught"]
    assert near(right)[0] == right["verdict"] == "holds"
    assert near(right)[1].endswith("controls caught, window-one-long by liveness")
    wrong = verify(tmp_path, "_longer", **loose)
    assert {c["relation"]: c["verdict"] for c in wrong["checks"]}["liveness"] == "differs"


def test_where_rounding_is_as_large_as_the_fault_another_format_must_see_it(
    tmp_path: Path,
) -> None:
    faint = {"softcap": 60.0}
    alone = verify(tmp_path, limits={"max_abs": 2e-2}, subject=faint)
    assert near(alone)[0] == "void"
    assert near(alone)[1].endswith("no limit tells them apart in bfloat16; ask for float32 too")
    limits = {"float32": {"max_abs": 1e-5}, "bfloat16": {"max_abs": 2e-2}}
    both: dict[str, Any] = {"execution": ["float32", "bfloat16"], "limits": limits}
    found = verify(tmp_path, subject=faint, **both)
    assert near(found)[0] == "holds"
    assert near(found)[1].endswith("controls caught, softcap-ignored by float32")
    assert near(verify(tmp_path, "_uncapped", subject=faint, **both))[0] == "differs"
    # The excuse is no wider: here a limit of bfloat16 could see it, and this one does not.
    wide = limits | {"bfloat16": {"max_abs": 2.0}}
    assert near(verify(tmp_path, subject=CAP, **(both | {"limits": wide})))[0] == "void"


def subject(kv_cache: str, **more: Any) -> AttentionSubject:
    model = {"kind": "attention", "prefill": f"{PAIRS}:prefill", "decode": f"{PAIRS}:decode"}
    return build(
        Attention.model_validate(model | {"heads": HEADS, "queries": "normal"} | more),
        execution="bfloat16", kv_cache=kv_cache, device=torch.device("cpu"), seed=1, base=Path(),
    )  # fmt: skip


@pytest.mark.parametrize("kv_cache", ["bfloat16", "fp8_e4m3(head)", "int8(8)"])
def test_exact_kernels_are_as_exact_as_their_format_over_every_store(kv_cache: str) -> None:
    from kvparity.plan.schedule import Layout, Plan, Span
    from kvparity.record.execute import run as run_plan

    found = subject(kv_cache, **WINDOW, **CAP)
    planted = found.with_pair(exact_pair(found, exact))
    steps = ((Span(0, 0, 18, 0, rows_to=18),), (Span(0, 18, 19, 18, decode=True),))
    record = run_plan(
        planted, Plan((Member("a", 20, 1),), steps, Layout()), [[0] * 20], temperatures=[1.0]
    )
    wanted = rounded(found, found.oracle(Member("a", 20, 1), [], range(19)))
    assert torch.equal(record.values.double(), wanted)


def rows(name: str, **more: Any) -> tuple[Tensor, Tensor, AttentionSubject]:
    """O and LSE with a fault, and right ones, of eight rows over twenty keys."""
    found = subject("bfloat16", **more)
    inputs = found.stored(Member("a", 20), range(12, 20))
    return ROWS[name](found, *inputs), exact(found, *inputs), found


def test_the_faults_are_what_they_are_called() -> None:
    wrong, right, found = rows("softcap-ignored", **CAP)
    inputs = found.stored(Member("a", 20), range(12, 20))
    assert torch.equal(wrong, exact(replace(found, softcap=0.0), *inputs))
    assert not torch.equal(wrong, right)
    wrong, right, found = rows("window-one-long", window=19)
    assert torch.equal(wrong[:-1], right[:-1])  # only the last row sees more than the window
    assert not torch.equal(wrong[-1], right[-1])
    wrong, _, found = rows("window-one-long", window=6)
    assert torch.equal(wrong, exact(replace(found, window=7), *inputs))
    wrong, right, found = rows("scale-of-padded-head")
    padded = replace(found, scale=16**-0.5)  # heads of 8, padded to 16
    torch.testing.assert_close(wrong, exact(padded, *found.stored(Member("a", 20), range(12, 20))))
    wrong, right, found = rows("kv-heads-interleaved")
    o, of = (x[:, :48].view(8, 6, 8) for x in (wrong, right))
    # Heads 0 .. 2 should read KV head 0: modulo two, heads 0, 2 and 4 do.
    assert [torch.equal(o[:, h], of[:, h]) for h in range(6)] == [1, 0, 1, 1, 0, 1]
    wrong, right, found = rows("sink-twice", sinks=[2, 2])
    assert torch.equal(wrong, exact(replace(found, sink_range=(2 + math.log(2),) * 2), *inputs))
    assert not torch.equal(wrong, right)
    for name in ROWS:
        with pytest.raises(UnsupportedError, match="needs a pair of kernels"):
            PLANTED[name](toy.Toy())


def test_a_format_is_measured_with_its_own_rounding() -> None:
    whole = in_format(subject("bfloat16"), "float32", "float32")
    assert (whole.execution, whole.kv_cache, whole.format) == (torch.float32, torch.float32, None)
    coded = in_format(subject("bfloat16"), "float16", "int8(8)")
    assert str(coded.store) == "int8(8)"
    x = torch.full((1, 54), 1 + 2**-9, dtype=torch.float64)
    assert rounded(subject("bfloat16"), x).tolist()[0] == [1.0] * 48 + [1 + 2**-9] * 6


def test_a_sink_that_a_decoder_counts_twice_is_over_its_limit() -> None:
    shape = {
        "vocab_size": 256, "hidden_size": 16, "intermediate_size": 16, "layers": 1, "heads": 2,
        "kv_heads": 1, "head_dim": 16, "max_positions": 64, "attention_sinks": True,
    }  # fmt: skip
    model = {"kind": "decoder", "config": shape, "order": {"split": 32, "tile": 16}}
    contract = toy.contract(
        subject=model,
        workloads=[{"name": "w", "prompt_tokens": [3], "generate": 2}],
        checks=[{"name": "near", "relation": "accuracy", "limits": {"max_abs_dlogp": 1e-4}}],
    )
    found = factory("decoder")(
        contract.subject, execution="float32", kv_cache="float32", device=torch.device("cpu"),
        seed=1, base=Path(),
    )  # fmt: skip
    (job,) = [each for each in make(contract).controls if each.control == "sink-twice"]
    tokens = [[5, 6, 7, 8, 9]]
    assert plant(Setting(contract, found), job, tokens).caught
    plain = toy.contract(checks=contract.checks)
    assert "sink-twice" not in {each.control for each in make(plain).controls}


def setting_of(execution: str, **more: Any) -> Setting:
    """A pair of usual heads, at the end of its window or beyond a tile."""
    pair = {"kind": "attention", "prefill": f"{PAIRS}:prefill", "decode": f"{PAIRS}:decode"}
    shape = {"heads": {"query": 8, "kv": 2, "dim": 64}, "queries": "normal"}
    prompt = more.get("window", 64) - 2
    contract = toy.contract(
        subject=pair | shape | more,
        numerics={"execution": execution},
        workloads=[{"name": "w", "prompt_tokens": [prompt, prompt + 30], "generate": 4}],
        checks=[{"name": "near", "relation": "accuracy", "limits": {"max_abs": 100.0}}],
    )
    model = contract.subject
    assert isinstance(model, Attention)
    found = build(
        model, execution=execution, kv_cache=execution, device=torch.device("cpu"), seed=0,
        base=Path(),
    )  # fmt: skip
    return Setting(contract, found)


@pytest.mark.parametrize(
    "more",
    [
        {"window": 64}, {"window": 512}, {"softcap": 10.0}, {"softcap": 50.0, "queries": "sharp"},
        {"window": 512, "queries": "mixed"},
    ],
)  # fmt: skip
def test_the_linter_expects_no_more_than_is_measured(more: dict[str, Any]) -> None:
    for execution in ("float32", "bfloat16"):
        whole = setting_of(execution, **more)
        pair = whole.contract.subject
        assert isinstance(pair, Attention)
        assert isinstance(whole.subject, AttentionSubject)
        ((name, expected),) = faint(pair)
        (found,) = reaches(whole, whole.subject, ROWS[name], lse=True)
        assert expected < 2 * found.measured
        assert pair.queries != "normal" or expected > found.measured / 8
        assert found.rounding < rounding(pair, execution)  # type: ignore[arg-type] # a dtype's name
