"""Settings of a scoring side that would not act, each beside its neighbours that do."""

from __future__ import annotations

import pytest

from kvparity_contracts.sides import (
    ModelSideSpec,
    RecordedSide,
    ServerSide,
    Sides,
    own_numbers,
    unused,
)

MODEL: dict[str, object] = {"kind": "model", "checkpoint": "m"}
RIGHT: dict[str, object] = {"layout": "right"}
FIXED: dict[str, object] = {"invariant": True, "attention": "eager"}


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, {}),
        ({"micro_batch": 0}, {"micro_batch": "micro_batch 0"}),
        ({"micro_batch": 1}, {}),
        ({"micro_batch": 2}, {"micro_batch": "micro_batch 2 with layout alone"}),
        (RIGHT | {"micro_batch": 2}, {}),
        (RIGHT | {"micro_batch": -1}, {"micro_batch": "micro_batch -1"}),
        ({"position_ids": False}, {"position_ids": "no position_ids with layout alone"}),
        (RIGHT | {"position_ids": False}, {}),
        ({"gradient_checkpointing": True}, {"gradient_checkpointing": "acts in train mode alone"}),
        ({"gradient_checkpointing": True, "train": True}, {}),
        ({"train": True}, {}),
        ({"invariant": True}, {"invariant": "its sums cannot be replaced"}),
        (FIXED, {}),
        (FIXED | {"compile": True}, {"invariant": "with compile or autocast"}),
        (FIXED | {"autocast": "bfloat16"}, {"invariant": "with compile or autocast"}),
        ({"attention": "eager", "compile": True, "autocast": "bfloat16"}, {}),
        ({"routes": "recorded"}, {}),
        ({"routes": "recorded", "compile": True}, {"routes": "cannot be replaced"}),
        ({"merged": True}, {"merged": "without an adapter"}),
        ({"adapter_dtype": "model"}, {"adapter_dtype": "adapter_dtype model without an adapter"}),
        ({"adapter": "a", "merged": True, "adapter_dtype": "model"}, {}),
    ],
)
def test_settings_that_would_not_act(settings: dict[str, object], found: dict[str, str]) -> None:
    told = {key: words for key, words, _ in unused(ModelSideSpec.model_construct(**settings))}
    assert told.keys() == found.keys()
    assert all(words in told[key] for key, words in found.items())


@pytest.mark.parametrize(
    ("rollout", "trainer", "tokens", "scores", "models", "draws"),
    [
        ("recorded", "recorded", None, None, "", False),
        ("recorded", "model", None, "trainer", "trainer", False),
        ("model", "recorded", "t", "rollout", "rollout", False),
        ("model", "server", None, "trainer", "rollout", True),
        ("server", "model", "t", "trainer", "trainer", False),
        ("model", "model", "t", "trainer", "trainer rollout", False),
    ],
)
def test_where_a_defect_of_scoring_is_planted(
    rollout: str, trainer: str, tokens: str | None, scores: str | None, models: str, draws: bool
) -> None:
    sides = Sides(
        kind="sides", rollout=_side(rollout, "r"), trainer=_side(trainer, "t"), tokens=tokens
    )
    places = {"rollout": sides.rollout, "trainer": sides.trainer, None: None}
    assert sides.scores is places[scores]
    assert sides.models == tuple(places[name] for name in models.split())
    assert sides.draws == draws
    assert sides.checkpoint == ("r" if rollout == "model" else None)
    assert sides.vocabulary == (9 if rollout == "server" else None)


def _side(kind: str, name: str) -> RecordedSide | ModelSideSpec | ServerSide:
    if kind == "recorded":
        return RecordedSide(kind="recorded", file=name)
    if kind == "model":
        return ModelSideSpec(kind="model", checkpoint=name)
    return ServerSide(kind="server", api="vllm", url="http://h:1", model=name, vocabulary=9)


@pytest.mark.parametrize("key", ["api", "url", "model", "dtype"])
def test_a_server_scores_beside_another_that_draws(key: str) -> None:
    own = {"api": "vllm", "url": "u", "model": "m", "dtype": "bfloat16"}
    one, other = (ServerSide.model_construct(**it) for it in (own, own | {key: "other"}))  # type: ignore[arg-type]
    alike = Sides.model_construct(rollout=one, trainer=one, tokens="t")
    assert alike._one_side_twice
    assert not Sides.model_construct(rollout=one, trainer=other, tokens="t")._one_side_twice
    assert not Sides.model_construct(rollout=one, trainer=one, tokens=None)._one_side_twice


def test_what_only_a_rollout_that_draws_must_say() -> None:
    scorer = ServerSide(kind="server", api="vllm", url="http://h:1", model="t")
    recorded = ModelSideSpec.model_validate(MODEL | {"routes": "recorded"})
    assert Sides(kind="sides", rollout=_side("model", "r"), trainer=scorer).draws
    assert not Sides(kind="sides", rollout=_side("recorded", "r"), trainer=recorded).draws


@pytest.mark.parametrize(("temperature", "words"), [(None, "1"), (0.5, "0.5"), (0.0, "0")])
def test_words_of_what_is_drawn(temperature: float | None, words: str) -> None:
    sides = Sides(
        kind="sides",
        rollout=_side("model", "r"),
        trainer=_side("server", "t"),
        temperature=temperature,
    )
    assert sides.words().endswith(f", on tokens that it draws at temperature {words}")


def test_numbers_of_one_file() -> None:
    def of(rollout: str, trainer: str, file: str = "f") -> Sides:
        return Sides(kind="sides", rollout=_side(rollout, "f"), trainer=_side(trainer, file))

    assert own_numbers(of("recorded", "recorded"))
    assert own_numbers(of("recorded", "recorded", "./f"))
    assert not own_numbers(of("recorded", "recorded", "g"))
    assert not own_numbers(of("server", "server"))  # scores what it drew
