from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from order_trees import random_tree

from kvparity.cli.main import main
from kvparity.core.exit_codes import ExitCode
from kvparity.relations.order import SumTree
from kvparity.relations.order.canonical import chain, denominator_order
from kvparity.relations.order.picture import draw
from kvparity_kernels.order import ReductionOrder

HERE = Path(__file__).parent
MODULE = """\
import sys
sys.path.insert(0, {here!r})
from functools import partial
import order_pairs
from order_pairs import How
prefill = partial(order_pairs.prefill, how=How())
decode = partial(order_pairs.decode, how=How())
reverse = partial(order_pairs.decode, how=How(reverse=True))
by_data = partial(order_pairs.decode, how=How(by_data=True))
natural = partial(order_pairs.decode, how=How(natural=True))
def broken(q, k_cache, v_cache, *, kv_lens, scale):
    raise RuntimeError("no such luck")
"""
SMALL = ["--keys", "20", "--dim", "16", "--rows", "2", "--draws", "2", "--device", "cpu"]


@pytest.fixture
def module(tmp_path, monkeypatch) -> str:
    (tmp_path / "pairs_of_orders.py").write_text(MODULE.format(here=str(HERE)))
    monkeypatch.chdir(tmp_path)
    return "pairs_of_orders.py"


def order(module: str, decode: str, *more: str) -> int:
    return main(["order", f"{module}:prefill,{module}:{decode}", *SMALL, *more])


@pytest.mark.parametrize(
    ("decode", "code", "verdict"),
    [
        ("decode", ExitCode.HOLDS, "consistent"),
        ("reverse", ExitCode.DIFFERS, "different-order"),
        ("natural", ExitCode.DIFFERS, "same-order-different-bits"),
        ("by_data", ExitCode.VOID, "not-a-tree"),
    ],
)
def test_verdicts_and_exit_codes(module, capsys, decode, code, verdict):
    assert order(module, decode, "--json") == code
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["verdict"] == verdict
    assert [report["keys"] for report in document["reports"]] == [20]
    assert verdict.upper() in err
    assert "proved" not in out + err


def test_the_terminal_names_part_trees_and_cost(module, capsys):
    assert order(module, "reverse", "--svg", "trees.svg") == ExitCode.DIFFERS
    out, _ = capsys.readouterr()
    assert "key order       DIFFERENT" in out
    assert "forms the partial sum" in out
    assert "launches" in out
    ElementTree.fromstring(Path("trees.svg").read_text())


def test_the_worst_verdict_of_several_lengths_counts(module, capsys):
    code = main(
        ["order", f"{module}:prefill,{module}:reverse", *SMALL[2:], "--keys", "9,20", "--json"]
    )
    document = json.loads(capsys.readouterr().out)
    assert [report["verdict"] for report in document["reports"]] == [
        "consistent",  # one tile: nothing to reverse
        "different-order",
    ]
    assert code == ExitCode.DIFFERS


def test_a_contract_brings_its_own_shape(module, tmp_path, capsys):
    contract = tmp_path / "pair.yaml"
    contract.write_text(
        "version: 1\nname: pair\nsubject:\n  kind: attention\n"
        f"  prefill: {module}:prefill\n  decode: {module}:decode\n"
        "  heads: {query: 2, kv: 1, dim: 16}\nnumerics: {execution: float32}\n"
        "workloads:\n  - {name: short, prompt_tokens: [3, 17], generate: 3}\n"
        "checks:\n"
        "  - {name: same, relation: invariance, reference: prefill, paths: [decode, batched]}\n"
        "  - {name: right, relation: accuracy, limits: {max_abs: 1.0e-4}}\n"
        "controls: all\n"
    )
    more = ["--keys", "20", "--rows", "2", "--draws", "1", "--device", "cpu"]
    assert main(["order", str(contract), *more, "--json"]) == ExitCode.HOLDS
    found = json.loads(capsys.readouterr().out)["reports"][0]
    assert found["subject"]["heads"] == {"query": 2, "kv": 1, "dim": 16, "v_dim": 16}
    assert main(["order", str(contract), *more, "--dim", "8"]) == ExitCode.USAGE
    assert "a contract says this itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["smoke"], "kind attention only"),
        (["nothing.yaml"], "nothing.yaml"),
        (["a:b,c"], "module:prefill,module:decode"),
        (["no_such_module:a,no_such_module:b"], "does not import"),
        (["math:sqrt,math:sqrt", "--keys", "six"], "whole numbers"),
        (["math:sqrt,math:sqrt", "--keys", "2"], "at least 3 keys"),
        (["math:sqrt,math:sqrt", "--heads", "3,2"], "multiple of key heads"),
    ],
)
def test_bad_input_is_exit_2_and_one_sentence(arguments, words, capsys):
    assert main(["order", *arguments, "--device", "cpu"]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err


def test_a_pair_that_raises_is_exit_3(module, capsys):
    assert order(module, "broken") == ExitCode.ERROR
    assert "no such luck" in capsys.readouterr().err


@pytest.mark.parametrize(
    "tree",
    [
        SumTree(1, ()),
        chain(4096),
        denominator_order(ReductionOrder(), 1025),
        random_tree(400, 5),
        random_tree(60, 6, most=9),
    ],
    ids=["one", "chain", "denominator", "random", "fused"],
)
def test_every_tree_can_be_drawn_and_large_ones_stay_small(tree):
    text = draw([("a <title> & more", tree)])
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert len(text) < 60_000
    assert tree.fingerprint in text
