"""What a listener hears of a transformers model explains what the model gives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tiny_transformers import family, one_by_one
from torch import Tensor
from transformers_families import FAMILIES, NO_SDPA, WINDOW
from transformers_listening import IDS, Everything, equal, open_session, run, written

from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects import events
from kvparity.subjects.base import UnsupportedError

LENGTH = 2 * WINDOW + 5


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def oracle(row: events.Attended) -> Tensor:
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
@pytest.mark.parametrize(
    "name",
    ["cohere2", "gemma2", "gemma3", "gemma3n", "gemma4", "gpt_oss", "llama", "mistral"],
)
def test_what_attention_was_given_explains_what_it_gave(
    name: str, kind: str, attention: str
) -> None:
    if attention == "sdpa" and name in NO_SDPA:
        attention = "eager"
    subject, heard = family(name, attention, kind), Everything()
    session = open_session(subject, LENGTH + 2)
    with events.listening(heard):
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
    with events.listening(shifted := Everything()):
        span = Span(0, 0, 3, rows_from=0, position_shift=1)
        list(open_session(subject, 4).forward((span,), [IDS[:3]]))
    assert [row.told for row in shifted.rows][:3] == [1, 2, 3]


@pytest.mark.parametrize(("name", "lost"), [("gemma2", "softcap"), ("gpt_oss", "sinks")])
def test_softcap_and_sinks_are_told(name: str, lost: str) -> None:
    heard = Everything()
    with events.listening(heard):
        run(open_session(family(name, "eager"), 9), [0, 9])
    row = heard.rows[-1]
    without = {"softcap": 0.0} if lost == "softcap" else {"sinks": None}
    other = events.Attended(**{**vars(row), **without})
    assert (oracle(other) - oracle(row)).abs().max() > 1e-3


def test_layers_that_compute_their_last_row_only_tell_of_it() -> None:
    """Gemma 4 with ``logits_to_keep``, where no rows are wanted of a chunk."""
    session = open_session(family("gemma4", "eager"), 9)
    with events.listening(heard := Everything()):
        list(session.forward((Span(0, 0, 7, rows_from=7),), [IDS[:7]]))
    told = [[r.position for r in heard.rows if r.layer == layer] for layer in range(4)]
    assert told == [[*range(7)], [*range(7)], [6], [6]]
    assert {(r.first, r.length) for r in heard.rows if r.layer > 1} == {(0, 7)}


def test_without_a_cache_keys_are_told_where_attention_is_given_them() -> None:
    subject, told = family("gemma4", "eager"), []
    for cached in (True, False):
        with events.listening(heard := Everything()):
            run(open_session(subject, LENGTH, cached=cached), [0, LENGTH])
        told.append(heard)
    for layer in range(2):
        assert equal(*(written(each, layer, 0, LENGTH) for each in told))
    assert len(told[0].rows) == len(told[1].rows) == 4 * LENGTH


def test_nothing_stays_wrapped_after_listening() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    session = open_session(family("llama", "eager"), 9)
    with events.listening(Everything()):
        run(session, [0, 4])
    assert "update" not in vars(session.places[0].cache)
    assert "get_interface" not in vars(ALL_ATTENTION_FUNCTIONS)


def test_what_is_not_told_is_refused() -> None:
    subject = family("llama4", "eager")  # chunks: rows see keys without gaps, so they are told
    with events.listening(heard := Everything()):
        run(open_session(subject, LENGTH), [0, LENGTH])
    assert {r.first for r in heard.rows if r.layer == 0} == {0, WINDOW, 2 * WINDOW}
    padded = subject.session([Member("a", 4)], Layout(batch="left"))
    with (
        events.listening(heard),
        pytest.raises(UnsupportedError, match="inside a padded batch of a transformers model"),
    ):
        list(padded.forward(one_by_one(3, 3)[0], [IDS[:3]]))
