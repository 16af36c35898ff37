"""``kvparity doctor`` does something with every kind of subject, and says what does not work."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from types import ModuleType

import pytest
import torch

from kvparity.cli.main import main
from kvparity.core import versions
from kvparity.run import trials
from kvparity.run.trials import FailedError, Trial, tried
from kvparity.subjects.registry import BUILT_IN

CPU = torch.device("cpu")


@pytest.fixture
def only(monkeypatch):
    """Try these alone: the others take time and are not the point."""

    def choose(*names):
        monkeypatch.setattr(trials, "TRIALS", {name: trials.TRIALS[name] for name in names})

    return choose


def doctor(capsys, *more):
    code = main(["doctor", "--device", "cpu", *more])
    return code, capsys.readouterr().out


def test_every_kind_of_subject_is_tried_and_works(capsys):
    code, out = doctor(capsys, "--json")
    found = json.loads(out)
    assert (code, found["ready"], found["problem"]) == (0, True, None)
    tried = {*BUILT_IN, "order"} - {"server"}  # which runs elsewhere, if at all
    assert tried <= set(found["trials"])
    for name in sorted(tried):
        assert found["trials"][name]["problem"] is None
        assert found["trials"][name]["missing"] is None
        assert found["subjects"][name].startswith("works: ")


def test_a_broken_transformers_is_said_in_one_sentence(only, monkeypatch, capsys):
    from transformers import GenerationMixin

    def renamed(self, *given, **named):
        raise TypeError("generate() got an unexpected\n  keyword argument 'max_new_tokens'")

    only("transformers", "attention")
    monkeypatch.setattr(GenerationMixin, "generate", renamed)
    code, out = doctor(capsys)
    sentence = out.splitlines()[0]
    assert code == 3
    assert sentence.startswith("NOT READY: transformers does not work on cpu: ")
    assert "generate() got an unexpected keyword argument 'max_new_tokens'" in sentence
    assert "try transformers     FAILED: forward and generate()" in out
    assert "try attention        works: " in out
    code, out = doctor(capsys, "--json")
    assert code == 3
    assert json.loads(out)["trials"]["transformers"]["problem"] in sentence


def test_a_transformers_that_does_not_import_is_a_failure_and_none_at_all_is_not(
    only, monkeypatch, capsys
):
    only("transformers")
    for name in [n for n in sys.modules if n.startswith("kvparity.subjects.hf")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers"))
    code, out = doctor(capsys)
    assert code == 3
    assert "transformers does not work on cpu: SubjectError: " in out.splitlines()[0]
    monkeypatch.setattr(trials, "find_spec", lambda name: None)
    code, out = doctor(capsys)
    assert (code, out.splitlines()[0]) == (0, "ready")
    assert "not installed (optional): pip install 'kvparity[transformers]'" in out


@pytest.mark.parametrize("name", ["attention", "decoder"])
def test_other_bits_of_our_own_kernels_are_a_failure(only, monkeypatch, capsys, name):
    only(name)
    monkeypatch.setattr(trials, "differing", lambda a, b: a == a)
    code, out = doctor(capsys)
    assert code == 3
    assert f"{name} does not work on cpu: paths prefill and decode gave different bits" in out


def test_an_order_that_is_not_certified_is_a_failure(only, monkeypatch):
    from kvparity.relations.order import sides

    own = sides.Side.run

    def other(self, q, k, v, sinks=None):
        found = own(self, q, k.flip(1), v.flip(1), sinks) if self.which == "decode" else None
        return found or own(self, q, k, v, sinks)

    only("order")
    monkeypatch.setattr(sides.Side, "run", other)
    assert "the order of our own kernels came out as " in (tried(CPU)["order"].problem or "")


def test_values_that_are_not_finite_are_a_failure(only, monkeypatch):
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    only("transformers")
    monkeypatch.setattr(Qwen3RMSNorm, "forward", lambda self, x: x * float("nan"))
    problem = tried(CPU)["transformers"].problem
    assert problem is not None
    assert problem.startswith("transformers does not work on cpu: ")


def test_what_a_library_says_is_cut_and_a_silent_one_is_said_to_be_silent(monkeypatch):
    def long(device):
        raise RuntimeError("a word " * 1000)

    def silent(device):
        raise AssertionError

    def failed(device):
        raise FailedError("in our own words")

    made = {n: Trial(n, c) for n, c in (("long", long), ("silent", silent), ("failed", failed))}
    monkeypatch.setattr(trials, "TRIALS", made)
    problems = {name: found.problem for name, found in tried(CPU).items()}
    assert len(problems["long"]) < 400
    assert problems["long"].endswith(" ...")
    assert problems["silent"] == "silent does not work on cpu: AssertionError: without a word"
    assert problems["failed"] == "failed does not work on cpu: in our own words"


def test_versions_stand_beside_those_that_were_tested(only, monkeypatch, capsys):
    only()
    monkeypatch.setitem(versions.TESTED, "torch", versions.VersionRange("1.0", "1.2"))
    code, out = doctor(capsys)
    found = version("torch")
    assert code == 0, "it works all the same"
    assert f"  torch                {found}" in out
    assert "(tested: 1.0 to 1.2)" in out
    assert f"outside of the tested versions: torch {found} (tested: 1.0 to 1.2)" in out
    code, out = doctor(capsys, "--json")
    assert json.loads(out)["tested"]["torch"] == "1.0 to 1.2"
    assert "torch" in json.loads(out)["outside_tested"]
