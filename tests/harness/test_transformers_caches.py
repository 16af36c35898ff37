"""What transformers' caches hold, and what its attention was given, seen through the seam."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny_transformers import family, one_by_one, same_bits
from torch import Tensor
from transformers_families import FAMILIES, NO_SDPA, WINDOW

from kvparity import taps
from kvparity.schedule import Layout, Member, Span
from kvparity.subject import LayeredCache, Reusable, UnsupportedError

LENGTH = 2 * WINDOW + 5
SLIDING = ("mistral", "gemma2", "gemma3", "gemma3n", "gemma4", "gpt_oss")
IDS = torch.randint(3, 128, (64,), generator=torch.Generator().manual_seed(1)).tolist()


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Everything:
    """A listener that wants all rows."""

    written: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)
    rows: list[taps.Attended] = field(default_factory=list)

    def wrote(self, event: taps.Wrote) -> None:
        for i, (k, v) in enumerate(zip(event.k, event.v, strict=True)):
            self.written[event.layer, event.start + i] = (k, v)

    def wants(self, sequence: int, positions: Sequence[int]) -> Sequence[int]:
        return positions

    def attended(self, event: taps.Attended) -> None:
        self.rows.append(event)


def open_session(subject: Any, *lengths: int, **more: Any) -> Any:
    return subject.session([Member(f"m{i}", n, 1) for i, n in enumerate(lengths)], Layout(**more))


def run(session: Any, cuts: Sequence[int], sequence: int = 0) -> Tensor:
    """The rows of one sequence in spans between ``cuts``."""
    out = []
    for a, b in pairwise(cuts):
        out += list(session.forward((Span(sequence, a, b, rows_from=a),), [IDS[a:b]]))
    return torch.cat(out)


def written(heard: Everything, layer: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
    pairs = [heard.written[layer, p] for p in range(start, stop)]
    return torch.stack([k for k, _ in pairs]), torch.stack([v for _, v in pairs])


def equal(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> bool:
    return all(same_bits(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", SLIDING)
def test_a_window_holds_its_newest_keys_at_their_positions(name: str, kind: str) -> None:
    session, heard = open_session(family(name, "eager", kind), LENGTH + 9), Everything()
    view = session.cache()
    assert isinstance(view, LayeredCache)
    cuts = [0, 3, WINDOW - 1, WINDOW, WINDOW + 1, WINDOW + 6, LENGTH - 1, LENGTH]
    for a, b in pairwise(cuts):
        with taps.listening(heard):
            run(session, [a, b])
        for layer in range(view.layers()):
            keeps = WINDOW - 1 if kind == "dynamic" else WINDOW
            first = max(0, b - keeps) if view.window(layer) == WINDOW else 0
            assert view.live(layer, 0) == range(first, b)
            assert equal(view.read(layer, 0, first, b), written(heard, layer, first, b))
            if b - first > 1:  # the control: one position further is something else
                off = written(heard, layer, first + 1, b), view.read(layer, 0, first, b - 1)
                assert not equal(*off)
            if first:
                with pytest.raises(UnsupportedError, match=f"which holds {first}..{b}"):
                    view.read(layer, 0, first - 1, b)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["gemma3n", "gemma4"])
def test_layers_that_share_keys_store_none(name: str, kind: str) -> None:
    session = open_session(family(name, "eager", kind), LENGTH)
    run(session, [0, 4])
    view = session.cache()
    assert view.layers() == 2
    assert [view.owner(layer) for layer in range(4)] == [0, 1, 0, 1]
    assert [view.window(layer) for layer in range(2)] == [WINDOW, None]
    k, v = view.read(1, 0, 0, 4)
    assert k.shape == v.shape == (4, 2, 16 if name == "gemma4" else 8)
    assert view.round_trip(1, k, v) == (k, v)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["mistral", "gemma4"])
@pytest.mark.parametrize("filled", [WINDOW - 1, WINDOW, LENGTH])
def test_a_written_key_moves_the_rows_that_see_it(name: str, kind: str, filled: int) -> None:
    def last_row(position: int | None) -> Tensor:
        session = open_session(family(name, "eager", kind), LENGTH + 2)
        run(session, [0, filled])
        view = session.cache()
        if position is not None:
            k, v = view.read(0, 0, position, position + 1)
            view.write(0, 0, position, k + 1, -v)
            assert equal(view.read(0, 0, position, position + 1), (k + 1, -v))
        return run(session, [filled, filled + 1])

    clean = last_row(None)
    assert same_bits(clean, last_row(None))
    first = max(0, filled - WINDOW + 1)
    assert not same_bits(clean, last_row(first))
    assert not same_bits(clean, last_row(filled - 1))
    if kind == "static" and first:  # the oldest slot is seen by nobody any more
        assert same_bits(clean, last_row(first - 1))


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["mistral", "gemma3n", "gpt_oss", "llama"])
@pytest.mark.parametrize(("start", "stop"), [(3, 4), (5, WINDOW + 1), (11, 12), (10, LENGTH)])
def test_going_back_one_call_gives_the_same_rows(
    name: str, kind: str, start: int, stop: int
) -> None:
    session = open_session(family(name, "eager", kind), LENGTH + 2)
    run(session, [0, start])
    view = session.cache()
    before = [view.read(i, 0, max(0, start - 3), start) for i in range(view.layers())]
    first = run(session, [start, stop])
    view.truncate(0, start)
    for layer, expected in enumerate(before):
        assert view.live(layer, 0).stop == start
        assert equal(view.read(layer, 0, max(0, start - 3), start), expected)
    assert same_bits(run(session, [start, stop]), first)
    view.truncate(0, start)
    k, v = view.read(0, 0, start - 1, start)
    view.write(0, 0, start - 1, k + 1, v)
    assert not same_bits(run(session, [start, stop]), first)


def test_a_written_key_survives_going_back() -> None:
    for kind in ("dynamic", "static"):
        session = open_session(family("mistral", "eager", kind), LENGTH + 2)
        run(session, [0, 12])
        view = session.cache()
        k, v = view.read(0, 0, 11, 12)
        view.write(0, 0, 11, k + 1, v)
        run(session, [12, 13])
        view.truncate(0, 12)
        assert equal(view.read(0, 0, 11, 12), (k + 1, v))


def test_a_window_does_not_go_back_further_than_it_can() -> None:
    session = open_session(family("mistral", "eager"), LENGTH + 2)
    run(session, [0, 12, 13, 14])
    with pytest.raises(UnsupportedError, match="going back to 10 tokens needs column 3"):
        session.cache().truncate(0, 10)
    padded = family("llama", "eager").session(
        [Member("a", 4), Member("b", 4)], Layout(batch="left")
    )
    step = (Span(0, 0, 3, rows_from=3), Span(1, 0, 3, rows_from=3))
    list(padded.forward(step, [IDS[:3], IDS[3:6]]))
    with pytest.raises(UnsupportedError, match="one sequence of a padded batch"):
        padded.cache().truncate(0, 2)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["llama", "mistral", "gemma4", "gpt_oss"])
def test_a_reset_session_computes_as_a_fresh_one(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.cache_utils import CacheLayerMixin

    subject, cuts = family(name, "eager", kind), [0, 5, 6, WINDOW + 3, WINDOW + 4]

    def used() -> Tensor:
        session = open_session(subject, LENGTH)
        assert isinstance(session, Reusable)
        run(session, [0, 7, WINDOW + 4])
        session.reset()
        assert session.cache().places[0].slots == []
        return run(session, cuts)

    fresh = run(open_session(subject, LENGTH), cuts)
    assert same_bits(used(), fresh)
    if kind == "static":  # the control: a reset that forgets nothing of a layer
        monkeypatch.setattr(CacheLayerMixin, "reset", lambda self: None)
        with pytest.raises((RuntimeError, AssertionError, IndexError)):
            assert same_bits(used(), fresh)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3n", "gemma4"])
@pytest.mark.parametrize("shared", [4, WINDOW + 5])
def test_a_shared_prefix_goes_on_as_its_own(name: str, kind: str, shared: int) -> None:
    subject = family(name, "eager", kind)
    members = [Member("m", LENGTH, shared), Member("d", shared + 2, shared + 1, "m", shared)]

    def adopted(prefix: list[int]) -> Tensor:
        session = subject.session(members, Layout())
        own = [*prefix, 9]
        list(session.forward((Span(1, 0, shared + 1, rows_from=shared + 1),), [own]))
        session.adopt(0, 1, shared)
        with pytest.raises(ValueError, match="not empty"):
            session.adopt(0, 1, shared)
        first = run(session, [shared, shared + 3])
        list(session.forward((Span(1, shared + 1, shared + 2, shared + 1, decode=True),), [[7]]))
        return torch.cat([first, run(session, [shared + 3, shared + 4, LENGTH])])

    cuts = [0, shared, shared + 3, shared + 4, LENGTH]
    expected = run(subject.session(members, Layout()), cuts)[shared:]
    found = adopted(IDS[:shared])
    # Other shapes (a longer prompt of the donor), so other sums: noise, no bits.
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    wrong = adopted([*IDS[: shared - 1], 3])
    assert (wrong - expected).abs().max() > 1e-2 * expected.abs().max()


def test_a_donor_that_did_not_record_its_past_says_so() -> None:
    session = open_session(family("mistral", "eager"), LENGTH, LENGTH)
    run(session, [0, 12], sequence=1)
    with pytest.raises(UnsupportedError, match="first 9 of 12 tokens cannot be taken over"):
        session.adopt(0, 1, 9)


def test_without_a_cache_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = family("gemma4", "eager")
    session = open_session(subject, LENGTH, cached=False)
    rows = run(session, [0, LENGTH])
    assert session.cache() is None
    assert session.observed()["cache.none"] == 1
    cached = run(open_session(subject, LENGTH), [0, 9, LENGTH])
    assert (rows - cached).abs().max() < 1e-4 * rows.abs().max()
    with pytest.raises(UnsupportedError, match="without one it must come whole"):
        run(open_session(subject, LENGTH, cached=False), [0, 4])


# what attention was given


def oracle(row: taps.Attended) -> Tensor:
    """One attended row in float64 from what was told: ``[q_heads, head_dim]``."""
    group = len(row.q) // row.k.shape[1]
    k, v = (x.double().repeat_interleave(group, dim=1) for x in (row.k, row.v))
    scores = torch.einsum("hd,nhd->hn", row.q.double(), k) * row.scale
    if row.softcap:
        scores = row.softcap * torch.tanh(scores / row.softcap)
    if row.sinks is not None:
        scores = torch.cat([scores, row.sinks.double()[:, None]], dim=1)
    weights = scores.softmax(dim=1)[:, : len(k)]
    return torch.einsum("hn,nhd->hd", weights, v)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", sorted({*SLIDING, "llama", "cohere2"}))
def test_what_attention_was_given_explains_what_it_gave(
    name: str, kind: str, attention: str
) -> None:
    if attention == "sdpa" and name in NO_SDPA:
        attention = "eager"
    subject, heard = family(name, attention, kind), Everything()
    session = open_session(subject, LENGTH + 2)
    with taps.listening(heard):
        run(session, [0, 5, WINDOW + 3, WINDOW + 4, LENGTH, LENGTH + 1])
    view = session.cache()
    depth = FAMILIES[name]["num_hidden_layers"]
    assert len(heard.rows) == depth * (LENGTH + 1)
    for row in heard.rows:
        owner = view.owner(row.layer)
        window = view.window(owner)
        first = 0 if window is None else max(0, row.position - window + 1)
        assert (row.first, row.length, row.told) == (first, row.position + 1, row.position)
        assert equal((row.k, row.v), written(heard, owner, first, row.length))
        assert row.decode == (row.position in (WINDOW + 3, LENGTH))
        # Sums of at most 8 and 22 terms in float32, and an exponential.
        bound = 64 * 2**-24 * max(1.0, float(row.v.abs().max()))
        assert (oracle(row) - row.out.double()).abs().max() < bound
    with taps.listening(shifted := Everything()):
        span = Span(0, 0, 3, rows_from=0, position_shift=1)
        list(open_session(subject, 4).forward((span,), [IDS[:3]]))
    assert [row.told for row in shifted.rows][:3] == [1, 2, 3]


@pytest.mark.parametrize(("name", "lost"), [("gemma2", "softcap"), ("gpt_oss", "sinks")])
def test_softcap_and_sinks_are_told(name: str, lost: str) -> None:
    heard = Everything()
    with taps.listening(heard):
        run(open_session(family(name, "eager"), 9), [0, 9])
    row = heard.rows[-1]
    without = {"softcap": 0.0} if lost == "softcap" else {"sinks": None}
    other = taps.Attended(**{**vars(row), **without})
    assert (oracle(other) - oracle(row)).abs().max() > 1e-3


def test_nothing_stays_wrapped_after_listening() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    session = open_session(family("llama", "eager"), 9)
    with taps.listening(Everything()):
        run(session, [0, 4])
    assert "update" not in vars(session.places[0].cache)
    assert "get_interface" not in vars(ALL_ATTENTION_FUNCTIONS)


def test_what_is_not_told_is_refused() -> None:
    subject = family("llama4", "eager")  # chunks: rows see keys without gaps, so they are told
    with taps.listening(heard := Everything()):
        run(open_session(subject, LENGTH), [0, LENGTH])
    assert {r.first for r in heard.rows if r.layer == 0} == {0, WINDOW, 2 * WINDOW}
    padded = subject.session([Member("a", 4)], Layout(batch="left"))
    with (
        taps.listening(heard),
        pytest.raises(UnsupportedError, match="inside a padded batch of a transformers model"),
    ):
        list(padded.forward(one_by_one(3, 3)[0], [IDS[:3]]))
