"""Sessions of the transformers subject against bare loops that make the same calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_transformers import BACKENDS, one_by_one, rectangle, rows, same_bits, tiny, tokens
from torch import Tensor

from kvparity.core.relied.transformers import cache_argument
from kvparity.plan.schedule import Layout, Member, Plan, Span
from kvparity.subjects.base import SubjectError, UnsupportedError
from kvparity.subjects.hf.run_counts import Observation


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny operations in several threads mostly wait, if other processes want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@torch.inference_mode()
def bare(model: Any, ids: list[int], cuts: list[int]) -> Tensor:
    """The loop that a user writes: one sequence, a cache, chunks that end at ``cuts``."""
    from transformers import DynamicCache

    cache, out, name = DynamicCache(config=model.config), [], cache_argument(model)
    for start, stop in zip([0, *cuts], cuts, strict=False):
        chunk = torch.tensor([ids[start:stop]])
        out.append(model(chunk, **{name: cache}, use_cache=True).logits[0].float())
    return torch.cat(out)


@pytest.mark.parametrize("attention", BACKENDS)
def test_steps_are_the_calls_of_a_bare_loop(attention: str) -> None:
    subject = tiny(attention)
    length = 18
    for chunk in (length, 7, 1):
        cuts = [*range(chunk, length, chunk), length]
        with subject.observing(Observation(order=subject.order)):
            expected = bare(subject.model, tokens(length), cuts)
        (found,) = rows(subject, [length], one_by_one(length, chunk), Layout())
        assert same_bits(found, expected)
    (shifted,) = rows(subject, [length], one_by_one(length, length, shift=1), Layout())
    assert not same_bits(shifted, expected)


@pytest.mark.parametrize("attention", BACKENDS)
@pytest.mark.parametrize("cache_kind", ["dynamic", "static"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_is_what_its_user_would_call(
    attention: str, cache_kind: str, side: Any
) -> None:
    from transformers import DynamicCache, StaticCache

    subject, prompts, new = tiny(attention, cache_kind), [5, 12, 9], 2
    lengths = [p + new for p in prompts]
    found = rows(subject, lengths, rectangle(prompts, new), Layout(batch=side))
    if cache_kind == "static":
        store = StaticCache(config=subject.model.config, max_cache_len=max(lengths) + 3)
    else:
        store = DynamicCache(config=subject.model.config)
    mask = torch.zeros(3, 12, dtype=torch.int64)
    ids, positions, start = mask.clone(), mask.clone(), []
    for i, p in enumerate(prompts):
        start.append(12 - p if side == "left" else 0)
        place = slice(start[i], start[i] + p)
        mask[i, place], positions[i, place] = 1, torch.arange(p)
        ids[i, place] = torch.tensor(tokens(lengths[i])[:p])
    expected: list[list[Tensor]] = [[], [], []]
    with torch.inference_mode(), subject.observing(Observation(order=subject.order)):
        for n in range(new + 1):
            given = {cache_argument(subject.model): store}
            out = subject.model(
                ids, attention_mask=mask, position_ids=positions, **given
            ).logits.float()
            for i, p in enumerate(prompts):
                expected[i].append(out[i, start[i] : start[i] + p] if n == 0 else out[i])
            ids = torch.tensor([[tokens(p + new)[p + n] if n < new else 0] for p in prompts])
            positions = torch.tensor([[p + n] for p in prompts])
            mask = torch.cat([mask, torch.ones(3, 1, dtype=torch.int64)], dim=1)
    for got, parts in zip(found, expected, strict=True):
        assert same_bits(got, torch.cat(parts))
    # Pads do not leak: the same sequence with other neighbours, and so other pads, up to rounding.
    (alone,) = rows(subject, lengths[:1], one_by_one(lengths[0], lengths[0]), Layout())
    assert (found[0] - alone).abs().max() < 0.05 * alone.abs().max()


def test_static_and_dynamic_caches_hold_the_same_keys() -> None:
    ids, views = tokens(11), []
    for kind in ("dynamic", "static"):
        session = tiny("eager", kind).session([Member("m", 11)], Layout())
        for step in one_by_one(11, 6):
            list(session.forward(step, [ids[step[0].start : step[0].stop]]))
        view = session.cache()
        assert view.layers() == 2
        views.append([view.read(layer, 0, 0, 11) for layer in range(2)])
        assert session.observed()[f"cache.{kind.title()}Cache"] == 2
    for (k0, v0), (k1, v1) in zip(*views, strict=True):
        assert k0.shape == (11, 2, 16)
        assert k0.view(torch.int16).equal(k1.view(torch.int16))
        assert v0.view(torch.int16).equal(v1.view(torch.int16))


@pytest.mark.parametrize("layout", [Layout(), Layout(batch="left"), Layout(batch="right")])
def test_the_cache_view_reaches_what_the_next_step_reads(layout: Layout) -> None:
    subject, out = tiny("eager"), []
    prompts = [6] if layout.batch == "packed" else [6, 9]
    for spoil in (False, False, True):
        members = [Member(f"m{i}", p + 1) for i, p in enumerate(prompts)]
        session = subject.session(members, layout)
        first, second = rectangle(prompts, 1)
        list(session.forward(first, [tokens(p) for p in prompts]))
        view = session.cache()
        k, v = view.read(1, 0, 2, 4)
        if spoil:
            view.write(1, 0, 2, k + 1, -v)
            again = view.read(1, 0, 2, 4)
            assert again[0].equal(k + 1)
            assert again[1].equal(-v)
        out.append(torch.cat(list(session.forward(second, [[5] for _ in prompts]))))
    assert same_bits(out[0], out[1])
    assert not same_bits(out[0][:1], out[2][:1])
    assert same_bits(out[0][1:], out[2][1:])  # the neighbour's rows do not move


def test_what_it_cannot_do_is_said_in_words() -> None:
    subject = tiny("sdpa")
    members = (Member("a", 4), Member("b", 4))
    both = (Span(0, 0, 4, 0), Span(1, 0, 4, 0))
    assert "2 sequences" in subject.unsupported(Plan(members, (both,), Layout()))
    assert "rectangle" in subject.unsupported(Plan(members, (both[:1],), Layout(batch="left")))
    assert "pages of 16" in subject.unsupported(Plan(members, (both,), Layout(page=16)))
    assert "generate()" in subject.unsupported(Plan(members, (), Layout(batch="left"), True))
    assert subject.unsupported(Plan(members, (both,), Layout(batch="left"))) is None
    assert subject.unsupported(Plan(members, (), Layout(), True)) is None
    with pytest.raises(UnsupportedError, match="pages of 16"):
        subject.session(members, Layout(page=16))
    with pytest.raises(UnsupportedError, match="2 sequences"):
        list(subject.session(members, Layout()).forward(both, [[1] * 4] * 2))
    with pytest.raises(UnsupportedError, match="rectangle"):
        list(subject.session(members, Layout(batch="right")).forward(both[:1], [[1] * 4]))
    with pytest.raises(ValueError, match="filled to 0"):
        list(subject.session(members, Layout()).forward((Span(0, 1, 2, 1),), [[1]]))
    static = tiny("sdpa", "static").session(members, Layout(batch="left", slack=0))
    with pytest.raises(SubjectError, match="4 slots"):
        list(static.forward(both, [[1] * 4] * 2)) and list(
            static.forward((Span(0, 4, 5, 4), Span(1, 4, 5, 4)), [[1]] * 2)
        )


def test_no_rows_wanted_gives_none() -> None:
    session = tiny("sdpa").session([Member("m", 6)], Layout())
    assert list(session.forward((Span(0, 0, 4, rows_from=4),), [tokens(4)])) == []
    (row,) = session.forward((Span(0, 4, 5, rows_from=4),), [[1]])
    assert row.shape == (1, 512)


# what is reported


def test_a_replaced_backend_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = tiny("sdpa")
    monkeypatch.setattr(subject.model.config, "_attn_implementation", "eager")
    with pytest.raises(SubjectError, match=r"sdpa was asked for.*ran eager"):
        rows(subject, [4], one_by_one(4, 4), Layout())
    assert subject.describe()["used"]["attention"] == "eager"
    other = tiny("eager")
    monkeypatch.setattr(other.model.config, "_attn_implementation", "sdpa")
    with pytest.raises(SubjectError, match=r"eager was asked for.*ran sdpa"):
        rows(other, [4], one_by_one(4, 4), Layout())


def test_observing_leaves_transformers_as_it_was() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    before = {name: ALL_ATTENTION_FUNCTIONS[name] for name in ALL_ATTENTION_FUNCTIONS}
    rows(tiny("sdpa"), [4], one_by_one(4, 4), Layout())
    assert {name: ALL_ATTENTION_FUNCTIONS[name] for name in ALL_ATTENTION_FUNCTIONS} == before


def test_description_is_json_and_says_what_ran() -> None:
    subject = tiny("kvparity")
    rows(subject, [4], one_by_one(4, 4), Layout())
    said = json.loads(json.dumps(subject.describe()))
    assert said["class"] == "Qwen3ForCausalLM"
    assert (
        said["requested"]
        == said["used"]
        == {
            "attention": "kvparity",
            "devices": {"": "cpu"},
        }
    )
    assert said["attention_called"] == ["kvparity"]
    assert said["order"]["split"] == 32
    assert said["parameters"] == sum(p.numel() for p in subject.model.parameters())
    assert len(said["config_sha256"]) == 64


def test_oracle_is_the_same_model_more_exactly() -> None:
    ids = tokens(20)
    subject = tiny("sdpa", execution="float32")
    exact = subject.oracle(Member("m", 20), ids, range(5, 15))
    assert exact.shape == (10, 512)
    assert exact.dtype == torch.float64
    (found,) = rows(subject, [20], one_by_one(20, 20), Layout())
    # Two layers of width 64 in float32: sums of at most 128 terms, 2**-24 each.
    close = 2 * 128 * 2**-24 * float(exact.abs().max())
    assert (found[5:15].double() - exact).abs().max() < close
    wrong = subject.oracle(Member("m", 20), [ids[0] + 1, *ids[1:]], range(5, 15))
    assert (found[5:15].double() - wrong).abs().max() > close


def test_values_do_not_depend_on_the_dtype_of_the_rows() -> None:
    subject, targets = tiny("sdpa"), torch.tensor([3, 500])
    low = torch.randn(2, 512, generator=torch.Generator().manual_seed(0)).bfloat16()
    a = subject.values(low, targets, [1.0, 0.7])
    b = subject.values(low.float(), targets, [1.0, 0.7])
    assert a.shape == (2, 2)
    assert same_bits(a, b)
    assert not same_bits(a[:, 0], a[:, 1])
    expected = torch.log_softmax(low.double() / 0.7, -1)[torch.arange(2), targets]
    assert (a[:, 1].double() - expected).abs().max() < 2e-6  # a few float32 roundings below 8
