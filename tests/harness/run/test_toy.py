"""The toy behind the seam: what a unit of work makes of it, and of each of its defects."""

from __future__ import annotations

import pytest
import torch
import toy
from toy import GeneratingToy, Toy
from toy_defects import DEFECTS

from kvparity.plan.cases import Case, Unit, make
from kvparity.plan.schedule import Member
from kvparity.record.execute import Record
from kvparity.relations.bits_and_limits import Comparison
from kvparity.report.case_line import case_line
from kvparity.run.unit import Setting, require_paths, run_unit
from kvparity.subjects.base import Generates, SubjectError, UnsupportedError

Outcomes = dict[tuple[str, str], str]


def outcomes(setting: Setting) -> Outcomes:
    """(path, relation) -> the worst outcome over all units, temperatures included."""
    found: Outcomes = {}

    def emit(case: Case, result: Comparison, a: Record | None, b: Record) -> None:
        key = (str(case.path), case.relation)
        order = ("differs", "void", "holds")
        found[key] = min(found.get(key, "holds"), result.outcome, key=order.index)

    for unit in make(setting.contract).units:
        run_unit(setting, unit, tokens=None, done=frozenset(), emit=emit)
    return found


ALL = {
    ("decode", "invariance"),
    ("chunked(4)", "invariance"),
    ("batched", "invariance"),
    ("permuted", "invariance"),
    ("mixed", "invariance"),
    ("padded-left", "invariance"),
    ("prefill", "accuracy"),
}
DECODE = {"decode", "batched", "mixed", "padded-left"}
TOGETHER = {"batched", "permuted", "mixed", "padded-left"}


def test_the_toy_without_a_defect_holds_everywhere() -> None:
    assert outcomes(toy.setting()) == dict.fromkeys(ALL, "holds")


@pytest.mark.parametrize(
    ("defect", "where", "outcome"),
    [
        ("batch-dependent", TOGETHER, "differs"),
        ("never-decodes", DECODE, "void"),
        ("digest-only", DECODE, "differs"),
        ("nondeterministic", {"chunked(4)", *TOGETHER, "decode"}, "differs"),
    ],
)
def test_a_defect_shows_where_it_is_and_nowhere_else(
    defect: str, where: set[str], outcome: str
) -> None:
    found = outcomes(toy.setting(defect))
    wanted = {key: outcome if key[0] in where else "holds" for key in ALL}
    assert found == wanted


@pytest.mark.parametrize("defect", ["nan-rows", "inf-values", "hidden-nan"])
def test_what_is_not_finite_differs_on_every_path(defect: str) -> None:
    assert set(outcomes(toy.setting(defect)).values()) == {"differs"}


def test_consistent_and_wrong_fails_on_accuracy_alone() -> None:
    found = outcomes(toy.setting("wrong"))
    assert found.pop(("prefill", "accuracy")) == "differs"
    assert set(found.values()) == {"holds"}


def test_decode_where_none_was_asked_for_is_void() -> None:
    # Chunks of one token through the decode path: chunked(1) would verify decode against decode.
    checks = [{"name": "bits", "relation": "invariance", "paths": ["chunked(1)", "decode"]}]
    found = outcomes(toy.setting("always-decodes", checks=checks))
    assert found[("chunked(1)", "invariance")] == "void"
    assert outcomes(toy.setting(checks=checks))[("chunked(1)", "invariance")] == "holds"


def test_every_defect_is_used_by_a_test() -> None:
    elsewhere = {
        "extra-row",
        "missing-row",
        "flat-rows",
        "integer-rows",
        "narrow-rows",
        "float64-values",
        "short-values",
        "raises",
        "exits",
        "stops-early",
        "no-pages",
        "closed-cache",
        "replaced",
        "one-use",
        "always-caches",
        "keeps-old",
        "adopts-short",
        "shares-slots",
        "silent",
        "casts",
        "forgets-last",
        "loses-first",
        "blind-first",
        "window-short",
        "window-long",
        "unsteady",
    }
    here = {
        "batch-dependent",
        "never-decodes",
        "always-decodes",
        "nan-rows",
        "inf-values",
        "hidden-nan",
    }
    here |= {"nondeterministic", "wrong", "digest-only"}
    assert here | elsewhere == set(DEFECTS)


def unit(setting: Setting, number: int = 0) -> Unit:
    return make(setting.contract).units[number]


def ignore(case: Case, result: Comparison, a: Record | None, b: Record) -> None:
    assert case_line(case, result).verdict == result.outcome


def test_a_unit_says_what_it_compared_and_what_ran() -> None:
    setting = toy.setting()
    found = run_unit(setting, unit(setting), tokens=None, done=frozenset(), emit=ignore)
    assert found.unit == "short, float32"
    assert [(s.id, s.prompt, len(s.ids)) for s in found.sequences] == [
        ("short/0", 3, 7),
        ("short/1", 17, 21),
    ]
    assert found.subject["kind"] == "toy"
    assert found.observed["decode"] == {"attention.prefill": 2, "attention.decode": 6}
    assert found.observed["prefill"] == {"attention.prefill": 2}
    assert set(found.seconds) == set(found.observed) == set(found.launches)


def test_the_same_tokens_are_drawn_again_and_known_ones_are_kept() -> None:
    setting = toy.setting()
    first = run_unit(setting, unit(setting), tokens=None, done=frozenset(), emit=ignore)
    again = run_unit(setting, unit(setting), tokens=None, done=frozenset(), emit=ignore)
    assert first.sequences == again.sequences
    other = first.tokens
    other[0][-1] = (other[0][-1] + 1) % 256
    kept = run_unit(setting, unit(setting), tokens=other, done=frozenset(), emit=ignore)
    assert kept.tokens == other


def test_sequences_take_turns_at_the_temperatures() -> None:
    # One prompt twice, with the random numbers of their own names: what tells them apart beyond
    # that is the temperature, and at one that is nearly 0 the likeliest token is drawn.
    def greedy(*temperatures: float) -> list[bool]:
        setting = toy.setting(
            workloads=[{"name": "w", "prompts": [[5, 6], [5, 6]], "generate": 5}],
            numerics={"execution": "float32", "temperatures": list(temperatures)},
            checks=[{"name": "b", "relation": "invariance", "paths": ["decode"]}],
        )
        found = run_unit(setting, unit(setting), tokens=None, done=frozenset(), emit=ignore)
        likeliest = []
        for ids in found.tokens:
            rows = setting.subject.oracle(Member("w", 7, 2), ids, range(1, 6))
            likeliest.append(rows.argmax(-1).tolist() == ids[2:])
        return likeliest

    assert greedy(1e-6, 1.0) == [True, False]
    assert greedy(1.0, 1e-6) == [False, True]


def test_tokens_do_not_depend_on_who_else_is_there() -> None:
    def ids(lengths: list[int]) -> list[int]:
        workloads = [{"name": "w", "prompt_tokens": lengths, "generate": 6}]
        checks = [{"name": "b", "relation": "invariance", "paths": ["decode"]}]
        setting = toy.setting(workloads=workloads, checks=checks)
        found = run_unit(setting, unit(setting), tokens=None, done=frozenset(), emit=ignore)
        return found.tokens[0]

    assert ids([5]) == ids([5, 9, 30])


def test_finished_cases_are_not_run_again() -> None:
    setting = toy.setting()
    done = frozenset(case.id for case in unit(setting).cases[:-1])
    seen: list[str] = []
    run_unit(
        setting,
        unit(setting),
        tokens=None,
        done=done,
        emit=lambda case, *_: seen.append(case.id),
    )
    assert seen == [unit(setting).cases[-1].id]


@pytest.mark.usefixtures("every_path")
def test_the_subjects_own_loop_is_rolled_out_and_rescored() -> None:
    checks = [
        {"name": "bits", "relation": "invariance", "paths": ["generate", "decode", "chunked(4)"]}
    ]
    assert isinstance(GeneratingToy(), Generates)
    assert not isinstance(Toy(), Generates)
    setting = Setting(toy.contract(checks=checks), GeneratingToy())
    assert set(outcomes(setting).values()) == {"holds"}
    idle = Setting(setting.contract, GeneratingToy("never-decodes"))
    assert outcomes(idle)[("generate", "invariance")] == "void"
    with pytest.raises(SubjectError, match=r"generate\(\) took 3 tokens"):
        outcomes(Setting(setting.contract, GeneratingToy("stops-early")))


def test_a_path_that_is_not_supported_stops_the_unit_before_it_works() -> None:
    checks = [{"name": "bits", "relation": "invariance", "paths": ["decode", "paged(4)"]}]
    setting = toy.setting("no-pages", "raises", checks=checks)
    with pytest.raises(UnsupportedError, match=r"path paged\(4\): the toy has no pages"):
        run_unit(setting, unit(setting), tokens=None, done=frozenset(), emit=ignore)


def test_sequences_longer_than_the_subject_are_refused() -> None:
    workloads = [{"name": "w", "prompt_tokens": [510], "generate": 4}]
    checks = [{"name": "b", "relation": "invariance", "paths": ["decode"]}]
    setting = toy.setting(workloads=workloads, checks=checks)
    with pytest.raises(UnsupportedError, match=r"longest sequence has 514 .* 512 positions"):
        setting.plans("w")


def test_neighbours_longer_than_the_subject_are_refused() -> None:
    # The workload just fits; the strangers beside it are five tokens longer.
    workloads = [{"name": "w", "prompt_tokens": [60], "generate": 4}]
    checks = [{"name": "b", "relation": "invariance", "paths": ["batched"]}]
    subject = Toy()
    subject.max_positions = 64
    setting = Setting(toy.contract(workloads=workloads, checks=checks), subject)
    with pytest.raises(UnsupportedError, match=r"path batched: a neighbour .* 69 tokens"):
        require_paths(setting, unit(setting), setting.plans("w"))
    subject.max_positions = 69
    require_paths(setting, unit(setting), setting.plans("w"))


def test_the_toy_is_exact() -> None:
    model = Toy()
    q, k, v = model.embed(torch.arange(200), torch.arange(200))
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    assert torch.equal(model.logits(q[-1], k, v), model.logits(q[-1], k[order], v[order]))
    assert not torch.equal(model.logits(q[-1], k, v), model.logits(q[-1], k[1:], v[1:]))
