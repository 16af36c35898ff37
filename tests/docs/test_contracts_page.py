"""The contract reference: examples lint, and what is told of paths, findings and voids is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
from pages import PAGES, ROOT, fences, table_rows
from server_stand_in import StandIn, serving

from kvparity.plan.paths import build
from kvparity.plan.workload import fill
from kvparity.subjects.registry import factory
from kvparity_contracts import ContractError, PathName, lint, load
from kvparity_contracts.abilities import cannot
from kvparity_contracts.contract import Contract
from kvparity_contracts.draws import means
from kvparity_contracts.grouping import hidden_mapping
from kvparity_contracts.paths import KINDS, WITH_ARGUMENT

CONTRACTS = (ROOT / "docs" / "contracts.md").read_text()
EVIDENCE = (ROOT / "docs" / "evidence.md").read_text()
EXAMPLES = [
    pytest.param(fence, id=f"{page.name}-{number}")
    for page in PAGES
    for number, fence in enumerate(fences(page.read_text()))
    if fence.is_contract
]


@pytest.mark.parametrize("fence", EXAMPLES)
def test_contracts_of_the_pages_lint(fence, tmp_path):
    file = tmp_path / (fence.title or "contract.yaml")
    file.write_text(fence.text)
    found = lint(load(file))
    assert bool(found) == (fence.title in ("too-short.yaml", "tiles.yaml", "late.yaml")), "\n".join(
        map(str, found)
    )


BESIDE = [
    file for file in sorted((ROOT / "docs").rglob("*.yaml")) if "\nsubject:" in file.read_text()
]


@pytest.mark.parametrize("file", BESIDE, ids=lambda f: f.stem)
def test_contracts_beside_the_pages_hide_no_mapping_of_heads(file):
    # Some of them ask one narrow thing, so other findings are theirs to have.
    assert list(hidden_mapping(load(file).contract)) == []


def test_the_examples_are_found_and_a_bad_one_is_seen(tmp_path):
    assert len(EXAMPLES) >= 5
    file = tmp_path / "bad.yaml"
    file.write_text(EXAMPLES[0].values[0].text.replace("relation: invariance", "relation: equal"))
    with pytest.raises(ContractError):
        load(file)


# which subject takes which path

TINY = {
    "model_type": "qwen3", "vocab_size": 256, "hidden_size": 16, "intermediate_size": 16,
    "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16,
}  # fmt: skip
SUBJECTS = {
    "attention": {
        "prefill": "kvparity_kernels.attention:prefill",
        "decode": "kvparity_kernels.attention:decode",
        "heads": {"query": 1, "kv": 1, "dim": 16},
    },
    "decoder": {"preset": "tiny"},
    "transformers": {"attention": "eager", "config": TINY},
    "server": {"api": "vllm", "vocabulary": 256, "url": "http://127.0.0.1:1"},
}


def _contract(kind: str) -> Contract:
    return Contract.model_validate(
        {
            "version": 1,
            "name": "paths",
            "subject": {"kind": kind, **SUBJECTS[kind]},
            "numerics": {"execution": "float32"},
            "workloads": [{"name": "w", "prompt_tokens": [2, 3], "generate": 3}],
            "checks": [{"name": "c", "relation": "invariance", "paths": ["decode"]}],
        }
    )


@pytest.mark.parametrize("kind", list(SUBJECTS))
def test_each_subject_takes_the_paths_that_are_told(kind, monkeypatch):
    rows = dict(table_rows(CONTRACTS, "those ids."))
    with serving(StandIn()) as stand_in:
        monkeypatch.setitem(SUBJECTS["server"], "url", stand_in.url)
        contract = _contract(kind)
        subject = factory(kind)(
            contract.subject,
            execution="float32",
            kv_cache="float32",
            device=torch.device("cpu"),
            seed=0,
            base=Path(),
        )
    prompts = fill(contract.workloads[0], seed=0, vocab=subject.vocab)
    taken = []
    for word in KINDS:
        if word != "padded":
            written = "0:0-4 / 1:0-5" if word == "steps" else ""
            name = PathName(word, 2 if word in WITH_ARGUMENT else None, written)
            path = name.expand(())[0]
            plan = build(path, prompts, seed=0, given=means(contract))
            if subject.unsupported(plan) is None and cannot(contract.subject, path) is None:
                after = "(...)" if written else "(n)" if word in WITH_ARGUMENT else ""
                taken.append(f"`{word}{after}`")
    assert rows[f"`{kind}`"].split(", ") == taken


# messages


def _words(node: ast.expr) -> list[str]:
    """The fixed parts of a message, without its formatted values."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return [part for value in node.values for part in _words(value)]
    if isinstance(node, ast.IfExp):
        return _words(node.body) + _words(node.orelse)
    return []


def _flat(text: str) -> str:
    return " ".join(re.sub(r"['`\"]", "", text).split())


def untold(messages: list[ast.expr], page: str) -> list[str]:
    """Fixed words of messages, six characters or more, that a page does not hold."""
    text = _flat(page)
    parts = [_flat(word).strip(" ,:;()") for node in messages for word in _words(node)]
    return [part for part in parts if len(part) > 5 and part not in text]


def _notes() -> list[ast.expr]:
    files = ("linter.py", "lint_controls.py", "grouping.py", "few_rows.py", "undeclared.py")
    trees = [
        ast.parse((ROOT / "contracts/kvparity_contracts" / each).read_text()) for each in files
    ]
    found = []
    for node in (node for tree in trees for node in ast.walk(tree)):
        pair = node.value if isinstance(node, ast.Yield) else None
        if isinstance(pair, ast.Tuple) and len(pair.elts) == 2:
            found.append(pair.elts[1])
    return found


def _voids() -> list[ast.expr]:
    """Second members of ``"void", ...``, in tuples and in calls, and the reasons to be idle."""
    found = []
    for name in (
        "relations/bits_and_limits.py",
        "relations/accuracy/measure.py",
        "relations/audit/relation.py",
        "relations/cache/compare.py",
        "relations/liveness/probing.py",
        "relations/order/relation.py",
        "report/verdict.py",
    ):
        tree = ast.parse((ROOT / "harness/kvparity" / name).read_text())
        idle = [n for n in tree.body if getattr(n, "name", "") in ("same_work", "other_work")]
        returns = [n for function in idle for n in ast.walk(function) if isinstance(n, ast.Return)]
        found += [n.value for n in returns if isinstance(n.value, (ast.Constant, ast.JoinedStr))]
        for node in ast.walk(tree):
            parts: list[ast.expr] = []
            if isinstance(node, ast.Tuple):
                parts = node.elts
            elif isinstance(node, ast.Call):
                parts = node.args
            if len(parts) > 1 and isinstance(parts[0], ast.Constant) and parts[0].value == "void":
                found.append(parts[1])
    return found


def test_every_lint_finding_is_told():
    assert len(_notes()) >= 12
    assert untold(_notes(), CONTRACTS) == []
    assert untold(_notes(), CONTRACTS.replace("no check uses the workload", ""))


def test_every_reason_to_be_void_is_told():
    assert len(_voids()) >= 10
    assert untold(_voids(), EVIDENCE) == []
    assert untold(_voids(), EVIDENCE.replace("planted and not caught", ""))
