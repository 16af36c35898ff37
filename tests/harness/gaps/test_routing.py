"""Experts of a mixture: seen, compared with recorded ones, and replayed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gaps import causes, tiny
from gaps.causes import Given
from transformers import AutoConfig, AutoModelForCausalLM
from transformers_families import TYPES

from kvparity.cli.main import main
from kvparity.core.errors import UnsupportedError
from kvparity.gaps.flips import Rerouted, TakenExperts, flips, from_base, from_recorded
from kvparity.gaps.model_side import ModelSide
from kvparity.gaps.settings import Settings
from kvparity.rollouts import Rollout, RolloutWriter
from kvparity.rollouts.record import Routes
from kvparity.rollouts.tokens import ScoredSequence, Tokens

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Given:
    base = tmp_path_factory.mktemp("mixture")
    return causes.made(tiny.mixture(base / "model"), base)


@pytest.fixture(scope="module")
def given(own: Given) -> Given:
    """With experts that the model did not choose itself."""
    return causes.routed(own)


def scored(
    folder: Path, rollouts: list[Rollout], **settings: object
) -> list[tuple[torch.Tensor, Routes]]:
    """Logprobs, and the experts that were taken."""
    side = ModelSide(folder, Settings(**settings), CPU, watch=True)  # type: ignore[arg-type]
    found = []
    for each, values in side.score(iter(rollouts)):
        assert side.last is not None
        assert side.last[0] is each
        found.append((torch.from_numpy(values), side.last[1]))
    return found


BATCHES = [
    {},
    {"layout": "right", "micro_batch": 2},
    {"layout": "left", "micro_batch": 3},
    {"layout": "packed", "micro_batch": 2},
]


@pytest.mark.parametrize("batch", BATCHES, ids=lambda it: str(it.get("layout", "alone")))
def test_the_recorded_experts_are_taken(given: Given, batch: dict[str, object]) -> None:
    """Every layer of every token that scores one, wherever its row lies. What is recorded of the
    last one is not read: engines have nothing, or zeros."""
    rollouts = [*given.rollouts]
    assert rollouts[1].routes is not None
    assert rollouts[2].routes is not None
    rollouts[1] = replace(rollouts[1], routes=rollouts[1].routes[:-1])
    rollouts[2] = replace(
        rollouts[2], routes=rollouts[2].routes * (np.arange(16) < 15)[:, None, None]
    )
    own = scored(given.folder, rollouts, **batch)
    found = scored(given.folder, rollouts, **batch, routes="recorded")
    for (before, _), (after, experts), each in zip(own, found, rollouts, strict=True):
        assert each.routes is not None
        assert not torch.equal(before, after)
        wanted = np.sort(each.routes, -1)[: len(experts) - 1]
        assert np.array_equal(np.sort(experts, -1)[:-1], wanted)


def test_a_replayed_choice_has_the_models_own_weights(given: Given) -> None:
    """Bit for bit what a plain script gives that chooses so (and the model, where it chose so)."""
    script, _ = causes.other_experts(given)
    found = scored(given.folder, [*given.rollouts], routes="recorded")
    own = scored(given.folder, [*given.rollouts])
    for wanted, (values, _), (others, _) in zip(script, found, own, strict=True):
        assert torch.equal(values.view(torch.int32), wanted.view(torch.int32))
        assert not torch.equal(values, others)
    turned = [
        replace(each, routes=experts[..., ::-1].copy())
        for each, (_, experts) in zip(given.rollouts, own, strict=True)
    ]
    again = scored(given.folder, turned, routes="recorded")
    assert all(torch.equal(a[0], b[0]) for a, b in zip(own, again, strict=True))


def test_only_layers_that_have_experts_are_read(tmp_path: Path, own: Given) -> None:
    """DeepSeek: groups are chosen first, and the first layer has no experts. Engines record a row
    of zeros for it, or none."""
    config = dict(TYPES["deepseek_v3"])
    made = AutoConfig.for_model(config.pop("model_type"), **config)
    AutoModelForCausalLM.from_config(made).to(torch.bfloat16).save_pretrained(tmp_path)
    first = [own.rollouts[0]]
    (values, experts), *_ = scored(tmp_path, first)
    assert experts.shape == (14, 1, 2)
    other = (experts + 1) % 4
    wide = np.concatenate([np.zeros_like(other), other], axis=1)
    found = [
        scored(tmp_path, [replace(first[0], routes=routes)], routes="recorded")[0]
        for routes in (other, wide)
    ]
    assert not torch.equal(found[0][0], values)
    assert torch.equal(found[0][0], found[1][0])
    assert np.array_equal(np.sort(found[1][1], -1)[:-1], np.sort(other, -1)[:-1])


def _at(token: int, layer: int, experts: list[int]) -> Callable[[Routes], Routes]:
    def changed(routes: Routes) -> Routes:
        routes = routes.copy()
        routes[token, layer] = experts
        return routes

    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda it: it[:, :1],
            "1: its routes are of 1 layers; expected 2, those of the model",
        ),
        (lambda it: it[..., :1], "1: its routes name 1 experts for each token; the model takes 2"),
        (_at(3, 1, [8, 0]), r"give token 3 in layer 1 the experts \[8, 0\]; expected 2 of its 8"),
        (_at(3, 1, [2, -1]), r"give token 3 in layer 1 the experts \[2, -1\]; expected 2 of"),
        (_at(4, 0, [5, 5]), r"give token 4 in layer 0 the experts \[5, 5\]; expected each once"),
        (lambda it: None, "sequence 1 has no routes: record them"),
    ],
    ids=["layers", "per token", "above", "below", "twice", "none"],
)
def test_routes_that_do_not_fit(
    given: Given, change: Callable[[Routes], Routes], message: str
) -> None:
    first, second, *_ = given.rollouts
    assert second.routes is not None
    wrong = [first, replace(second, routes=change(second.routes))]
    with pytest.raises(UnsupportedError, match=message):
        scored(given.folder, wrong, routes="recorded")


def test_what_has_no_routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Given) -> None:
    dense = tiny.checkpoint(tmp_path)
    with pytest.raises(UnsupportedError, match="LlamaForCausalLM has no mixture of experts, so"):
        ModelSide(dense, Settings(routes="recorded"), CPU)
    assert ModelSide(dense, Settings(), CPU, watch=True).routing is None
    with pytest.raises(ValueError, match="recorded routes with compile: a compiled choice"):
        Settings(routes="recorded", compile=True)
    message = "routes of MixtralForCausalLM: its layers make 0 choices of 2 of 8 experts"
    monkeypatch.setattr("kvparity.gaps.routing._CHOOSES", ())  # a model that chooses otherwise
    with pytest.raises(UnsupportedError, match=message):
        ModelSide(given.folder, Settings(routes="recorded"), CPU)
    assert ModelSide(given.folder, Settings(), CPU, watch=True).unseen.startswith(message)


def test_flips_and_their_share_of_the_gap() -> None:
    d = np.array([0.0, 0.5, -0.1, 0.0], dtype=np.float32)
    values, ints = -np.ones(4, dtype=np.float32), np.arange(4, dtype=np.int32)
    tokens = Tokens.of([ScoredSequence("a", values, values + d, ints + 5, ints)])
    before = np.tile(np.array([[1, 2], [0, 3]], dtype=np.int32), (4, 1, 1))
    after = before.copy()
    after[1, 1], after[2], after[3, 0] = [0, 4], [[1, 5], [2, 3]], [2, 7]
    found = flips(tokens, (0, 3), before, after)
    assert (found.tokens, found.rerouted, found.layers) == (4, 3, ((0, 2), (3, 2)))
    assert (found.k3, found.abs_d) == (1.0, 1.0)
    assert found.worst[:2] == (
        Rerouted("a", 6, 3, (0, 3), (0, 4), pytest.approx(0.5)),
        Rerouted("a", 7, 0, (1, 2), (1, 5), pytest.approx(-0.1)),
    )
    assert from_recorded(tokens, None) is None
    assert from_recorded(tokens, TakenExperts((0, 3), after, None)) is None
    taken = TakenExperts((0, 3), after, before)
    assert from_recorded(tokens, taken) == found
    base = TakenExperts((0, 3), before, None)
    assert from_base(tokens, base, taken) == found
    assert from_base(tokens, base, TakenExperts((0, 3), after[:3], None)) is None
    assert from_base(tokens, None, taken) is None
    after[1] = before[1]
    part = flips(tokens, (0, 3), before, after)
    assert part.abs_d == pytest.approx(0.1 / 0.6)
    assert part.k3 == pytest.approx((np.exp(-0.1) - 0.9) / (np.exp(-0.1) - 0.9 + np.exp(0.5) - 1.5))


def test_the_gap_is_explained_by_routes(
    given: Given, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In words and as a document; a token's experts are those of the row that scores it."""
    script, routes = causes.other_experts(given)
    path = tmp_path / "rollout.jsonl"
    with RolloutWriter(path) as writer:
        for each, values, experts in zip(given.rollouts, script, routes, strict=True):
            assert each.prompt_ids is not None
            assert each.response_ids is not None
            writer.write(
                each.prompt_ids.tolist(),
                each.response_ids.tolist(),
                values.tolist(),
                routes=experts.tolist(),
            )
    command = ["drift", str(path), "--against", str(given.folder), "--explain"]
    assert main([*command, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["explanation"]
    assert found["smallest"] == ["routes recorded"]
    seen = found["base"]["flips"]
    own = [experts for _, experts in scored(given.folder, [*given.rollouts])]
    apart = [
        (np.sort(a.numpy(), -1) != np.sort(b, -1)).any((1, 2))[-10:-1]
        for a, b in zip(routes, own, strict=True)
    ]
    assert seen["rerouted"] == sum(int(each.sum()) for each in apart) > 0
    assert 0.5 < seen["k3"] <= 1
    replayed = next(it for it in found["singles"] if it["factors"] == ["routes recorded"])
    assert replayed["flips"]["rerouted"] == seen["rerouted"], "those that the base took otherwise"
    trials = tmp_path / "trials.jsonl"
    assert main([*command, "--trials", str(trials), "--seconds", "0"]) == 1
    said = capsys.readouterr().out
    assert f"experts: {seen['rerouted']} of 27 tokens took others than recorded, with" in said
    assert "position" in said
    assert ", first in layer 0: recorded [" in said
    assert main(["drift", str(path), "--against", str(given.folder), "--routes", "recorded"]) == 0
    assert "bfloat16, sdpa, routes recorded" in capsys.readouterr().out
