"""The helpers of the device tests, tiny, on the CPU: they are right about the kernels there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "gpu"))

import device_cases as cases  # noqa: E402 - a plain module of tests/gpu
import device_rules as rules  # noqa: E402

SHAPE = cases.Shape(dim=16, group=2)
ORDER = cases.ReductionOrder(split=32, tile=16, block_m=16)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for function in (cases.whole, cases.chunk, cases.last_rows):
        defaults = tuple(ORDER if x is cases.ORDER else x for x in function.__defaults__)
        monkeypatch.setattr(function, "__defaults__", defaults)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("page", [0, 16])
def test_paths_of_attention(dtype, page):
    data = [cases.sequence(n, SHAPE, dtype, n, "cpu") for n in (1, 33, 40)]
    expected = cases.expected_last(data, SHAPE)
    assert cases.unequal_results(cases.last_rows(data, SHAPE, page, slack=50), expected) == 0
    out, lse = cases.whole(data[-1], SHAPE, page)
    found = cases.chunk(data[-1], 30, 40, SHAPE)
    assert cases.unequal_results(found, (out[30:], lse[30:])) == 0
    other = cases.ReductionOrder(split=16, tile=16, block_m=16)
    assert cases.unequal_results(cases.last_rows(data, SHAPE, order=other), expected) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_of_operations(dtype):
    found = cases.operations(dtype, "cpu", rows=5, width=32, vocab=40)
    assert len(found) == 9
    for name, op in found.items():
        assert cases.row_faults(op, 5, (0, 4), "cpu") == [], name


def test_a_row_that_looks_at_its_neighbours_is_seen():
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    faults = cases.row_faults(lambda i: x[i] - x[i].mean(0), 5, (0,), "cpu")
    assert len(faults) >= 3
    nan = torch.full((5, 8), float("nan"))
    assert cases.row_faults(lambda i: nan[i], 5, (0,), "cpu") != []


def test_fingerprints_are_those_of_another_process(monkeypatch):
    monkeypatch.undo()  # the program has no small order
    done = subprocess.run(
        [sys.executable, cases.__file__, "cpu", "5"],
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(
                str(ROOT / d) for d in ("harness", "kernels", "contracts")
            )
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    here = cases.fingerprints("cpu", (5,))
    assert json.loads(done.stdout) == here
    assert len(set(here.values())) == 6


@pytest.mark.parametrize(
    "one",
    [
        rules.Rules(window=15),
        rules.Rules(window=16, ring=True),
        rules.Rules(softcap=5.0, sinks=True),
        rules.Rules(store="fp8_e4m3(head)"),
        rules.Rules(store="int4(16)"),
        rules.Rules(window=20, softcap=5.0, sinks=True, store="int8(8)", ring=True),
    ],
    ids=str,
)
def test_paths_under_the_rules_of_a_layer(one):
    data = cases.sequence(45, SHAPE, torch.float32, 5, "cpu")
    assert rules.faults(data, SHAPE, one, ORDER, chunk=20) == []


def test_a_rule_that_one_path_forgets_is_seen(monkeypatch):
    data = cases.sequence(45, SHAPE, torch.float32, 5, "cpu")
    monkeypatch.setattr(
        rules,
        "fresh",
        lambda q, shape, one, order: rules.rows(q, 0, 45, shape, rules.Rules(window=14), order),
    )
    assert len(rules.faults(data, SHAPE, rules.Rules(window=15), ORDER, chunk=20)) >= 3
