"""What a model is asked for, and told of, exactly once or not at all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from plain_host import CONFIG
from plain_subject import Model, subject
from tiny_transformers import tiny
from torch import Tensor
from transformers import DynamicCache
from transformers_listening import Everything

from kvparity.core.relied.transformers import attention_of
from kvparity.subjects.base import SubjectError
from kvparity.subjects.hf import generate as generation
from kvparity.subjects.hf import oracle
from kvparity.subjects.hf.emit_events import EventEmitter
from kvparity.subjects.hf.run_counts import Observation


def test_a_cache_that_comes_back_is_listened_to_once() -> None:
    heard: list[int] = []

    class Ear(Everything):
        def wrote(self, event: Any) -> None:
            heard.append(event.start)

    emitter, one, other = (
        EventEmitter(Ear(), CONFIG, sequence=0, filled=0),
        DynamicCache(config=CONFIG),
        DynamicCache(config=CONFIG),
    )
    for cache in (one, other, one):
        emitter.forward(1, cache, None)
        cache.update(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2), 0)
    assert heard == [0, 1, 2]
    emitter.close()
    assert "update" not in {*vars(one), *vars(other)}


def test_a_loop_that_ends_early_is_an_error_though_it_follows() -> None:
    class Early(Model):
        def generate(self, ids: Tensor, *, generation_config: Any, **more: Any) -> Tensor:
            generation_config.max_new_tokens -= 1
            return super().generate(ids, generation_config=generation_config, **more)

    with pytest.raises(SubjectError, match="returned 4 tokens of which 4 are the chosen ones"):
        generation.generate(
            Early(), "w/0", [1, 1], 5, lambda *_: 1, static=False, pad_token=0,
            seen=Observation(cache=SimpleNamespace(layers=[])), after_step=None,
        )  # fmt: skip


def test_the_twin_has_eager_attention_whatever_the_model_has() -> None:
    made = tiny("sdpa")
    assert attention_of(oracle.twin(made.model)) == "eager"
    assert attention_of(made.model) == "sdpa"


def test_the_twin_computes_without_a_cache() -> None:
    """Some caches hold less than float64."""
    asked: list[bool] = []

    def double(input_ids: Tensor, use_cache: bool) -> Any:
        asked.append(use_cache)
        return SimpleNamespace(logits=torch.zeros(*input_ids.shape, 3))

    oracle.logits(double, [1, 2], range(1, 2), torch.device("cpu"))
    assert asked == [False]


def test_an_error_without_words_is_told_by_its_type() -> None:
    assert str(oracle.refusal(Model(), ValueError())).endswith(": ValueError")


def test_the_sizes_are_those_of_the_text_that_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    text, other = model.config, SimpleNamespace(vocab_size=99)
    model.config = SimpleNamespace(get_text_config=lambda decoder=None: text if decoder else other)
    assert subject(model).vocab == CONFIG.vocab_size
