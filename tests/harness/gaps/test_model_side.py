"""A model scores as a plain script of transformers does, bit for bit, whatever the settings."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
from gaps import tiny

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.gaps.model_side import ModelSide
from kvparity.gaps.settings import Settings
from kvparity.rollouts import Rollout, RolloutError, read_rollouts

CPU = torch.device("cpu")
Values = list[torch.Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def rollouts(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Rollout]:
    path = tmp_path_factory.mktemp("drift") / "rollout.jsonl"
    return list(read_rollouts(tiny.rollout(folder, path, temperature=0.8)))


def _score(folder: Path, rollouts: list[Rollout], **settings: object) -> Values:
    side = ModelSide(folder, Settings(**settings), CPU)  # type: ignore[arg-type]
    found = list(side.score(iter(rollouts)))
    assert [each.sequence for each, _ in found] == [each.sequence for each in rollouts]
    return [torch.from_numpy(values) for _, values in found]


def _ids(each: Rollout) -> torch.Tensor:
    assert each.ids is not None
    return torch.from_numpy(each.ids)


def _prompt(each: Rollout) -> int:
    assert each.prompt_ids is not None
    return each.prompt_ids.size


def _chosen(rows: torch.Tensor, each: Rollout) -> torch.Tensor:
    """Of rows ``[T, vocab]`` of logprobs, those of the response."""
    ids, prompt = _ids(each), _prompt(each)
    return rows[prompt - 1 : ids.numel() - 1].gather(-1, ids[prompt:, None])[:, 0].float()


def _each(
    logprobs: Callable[[torch.Tensor], torch.Tensor], **loaded: object
) -> Callable[[Path, list[Rollout]], Values]:
    """A script that scores sequence by sequence."""

    @torch.no_grad()
    def run(folder: Path, rollouts: list[Rollout]) -> Values:
        model = tiny.plain(folder, **loaded)  # type: ignore[arg-type]
        return [
            _chosen(logprobs(model(input_ids=_ids(e)[None], use_cache=False).logits[0]), e)
            for e in rollouts
        ]

    return run


def _usual(logits: torch.Tensor) -> torch.Tensor:
    return logits.float().log_softmax(-1)


def _top(logits: torch.Tensor) -> torch.Tensor:
    return (logits.float() / 0.8).log_softmax(-1)


@torch.no_grad()
def _autocast(folder: Path, rollouts: list[Rollout]) -> Values:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return _each(_usual, dtype=torch.float32)(folder, rollouts)


@torch.no_grad()
def _head(folder: Path, rollouts: list[Rollout]) -> Values:
    model = tiny.plain(folder)
    found = []
    for each in rollouts:
        hidden = model.model(input_ids=_ids(each)[None], use_cache=False).last_hidden_state[0]
        logits = hidden.float() @ model.lm_head.weight.float().T
        found.append(_chosen(logits.log_softmax(-1), each))
    return found


def _padded(left: bool, positions: bool) -> Callable[[Path, list[Rollout]], Values]:
    @torch.no_grad()
    def run(folder: Path, rollouts: list[Rollout]) -> Values:
        model = tiny.plain(folder)
        width = max(_ids(each).numel() for each in rollouts)
        pads = [width - _ids(each).numel() for each in rollouts]
        shape = [(pad, 0) if left else (0, pad) for pad in pads]
        pad = torch.nn.functional.pad
        ids = torch.stack([pad(_ids(e), s) for e, s in zip(rollouts, shape, strict=True)])
        mask = torch.stack(
            [pad(torch.ones_like(_ids(e)), s) for e, s in zip(rollouts, shape, strict=True)]
        )
        given = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)} if positions else {}
        if positions and not left:
            given["position_ids"] = given["position_ids"] * mask
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **given).logits
        starts = pads if left else [0] * len(pads)
        return [
            _chosen(_usual(row[s:]), e) for row, s, e in zip(logits, starts, rollouts, strict=True)
        ]

    return run


def _packed(positions: bool) -> Callable[[Path, list[Rollout]], Values]:
    @torch.no_grad()
    def run(folder: Path, rollouts: list[Rollout]) -> Values:
        model = tiny.plain(folder)
        ids = [_ids(each) for each in rollouts]
        given = {"position_ids": torch.cat([torch.arange(it.numel()) for it in ids])[None]}
        logits = model(
            input_ids=torch.cat(ids)[None], use_cache=False, **(given if positions else {})
        ).logits[0]
        starts = [0, *accumulate(it.numel() for it in ids)]
        return [_chosen(_usual(logits[s:]), e) for s, e in zip(starts, rollouts, strict=False)]

    return run


SCRIPTS: dict[str, tuple[dict[str, object], Callable[[Path, list[Rollout]], Values]]] = {
    "bf16": ({}, _each(_usual)),
    "fp32": ({"dtype": "float32"}, _each(_usual, dtype=torch.float32)),
    "eager": ({"attention": "eager"}, _each(_usual, attention="eager")),
    "no upcast": ({"log_softmax": "logits"}, _each(lambda logits: logits.log_softmax(-1))),
    "after temperature": ({"processed": True}, _each(_top)),
    "autocast": ({"dtype": "float32", "autocast": "bfloat16"}, _autocast),
    "head": ({"head_dtype": "float32"}, _head),
    "right": ({"layout": "right", "micro_batch": 3}, _padded(False, True)),
    "left": ({"layout": "left", "micro_batch": 3}, _padded(True, True)),
    "left, counted": (
        {"layout": "left", "micro_batch": 3, "position_ids": False},
        _padded(True, False),
    ),
    "packed": ({"layout": "packed", "micro_batch": 3}, _packed(True)),
    "packed, counted": (
        {"layout": "packed", "micro_batch": 3, "position_ids": False},
        _packed(False),
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_bits_are_those_of_a_script(name: str, folder: Path, rollouts: list[Rollout]) -> None:
    settings, script = SCRIPTS[name]
    found, wanted = _score(folder, rollouts, **settings), script(folder, rollouts)
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.equal(ours.view(torch.int32), theirs.view(torch.int32))


def test_settings_differ_in_bits(folder: Path, rollouts: list[Rollout]) -> None:
    """So that none of the scripts above is another in disguise."""
    found = {n: torch.cat(_score(folder, rollouts, **s)) for n, (s, _) in SCRIPTS.items()}
    found["eager"] = found.pop("eager") + 1e-9  # eager and sdpa agree in bits at these sizes
    bits = {tuple(values.tolist()) for values in found.values()}
    assert len(bits) >= len(SCRIPTS) - 2


def test_chunks_of_the_vocabulary(
    folder: Path, rollouts: list[Rollout], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums of parts: other bits, the same number."""
    whole = _score(folder, rollouts, log_softmax="chunked")
    monkeypatch.setattr("kvparity.gaps.forward.CHUNK", 7)
    chunked = torch.cat(_score(folder, rollouts, log_softmax="chunked"))
    assert not torch.equal(chunked, torch.cat(whole))
    assert torch.allclose(chunked, torch.cat(whole), atol=1e-5)


def test_top_p(folder: Path, rollouts: list[Rollout]) -> None:
    """Renormalised over the smallest set of most likely tokens that reaches top-p."""
    from kvparity.gaps.forward import logprobs
    from kvparity.rollouts.record import Sampling

    rows = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(4, 1)
    tokens = torch.arange(4)
    found = logprobs(rows, tokens, "float32", Sampling(1.0, 0.7))
    assert np.exp(found).tolist() == pytest.approx([0.5 / 0.8, 0.3 / 0.8, 0, 0])
    assert np.isneginf(found[2:]).all()


def test_dropout_is_drawn_from_the_seed(tmp_path: Path, rollouts: list[Rollout]) -> None:
    other = tiny.checkpoint(tmp_path / "dropout", dropout=0.5)

    def scored(**settings: object) -> torch.Tensor:
        return torch.cat(_score(other, rollouts, attention="eager", **settings))

    one = scored(train=True, seed=1)
    assert torch.equal(one, scored(train=True, seed=1))
    assert torch.equal(one, scored(train=True, seed=1, gradient_checkpointing=True))
    assert not torch.equal(one, scored(train=True, seed=2))
    assert not torch.equal(one, scored())


def test_fixed_order_does_not_follow_the_batch(folder: Path, rollouts: list[Rollout]) -> None:
    fixed = {"attention": "eager", "invariant": True}
    alone = torch.cat(_score(folder, rollouts, **fixed))
    assert not torch.equal(alone, torch.cat(_score(folder, rollouts)))
    padded = _score(folder, rollouts, **fixed, layout="right", micro_batch=3)
    assert torch.equal(alone, torch.cat(padded))


def test_settings_that_would_not_act_are_refused() -> None:
    with pytest.raises(ValueError, match="micro_batch 0: expected a number from 1"):
        Settings(micro_batch=0)


def test_what_a_model_cannot_score(folder: Path, rollouts: list[Rollout]) -> None:
    each = rollouts[0]
    bare = Rollout("bare", None, each.response_ids, each.mask, each.logprobs)
    with pytest.raises(RolloutError, match="sequence bare has no prompt tokens: a model cannot"):
        _score(folder, [bare])
    silent = Rollout("silent", each.prompt_ids, each.response_ids, each.mask, each.logprobs)
    with pytest.raises(RolloutError, match="sequence silent has no temperature"):
        _score(folder, [silent], processed=True)
    with pytest.raises(UnsupportedError, match="no dropout of this checkpoint is above 0"):
        _score(folder, rollouts, train=True)
    far = Rollout("far", np.array([tiny.VOCABULARY]), each.response_ids, each.mask, each.logprobs)
    with pytest.raises(SubjectError, match="the model raised IndexError"):
        _score(folder, [far])
    with pytest.raises(UnsupportedError, match="no is not a folder; expected a local checkpoint"):
        _score(folder / "no", rollouts)


def test_words() -> None:
    assert Settings().words() == "bfloat16, sdpa"
    assert Settings(dtype="float32", layout="left", micro_batch=2, invariant=False).words() == (
        "float32, sdpa, layout left, micro_batch 2"
    )
