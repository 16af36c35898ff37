"""Heads that hide a wrong mapping are told wherever a contract chose them, and no example has any.

A kernel that divides by the number of KV heads, where it should divide by that of a group, gives
query head h the KV head h // kv. It is right by chance where both numbers are equal.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvparity_contracts import LoadedContract, find, library, lint, load
from kvparity_contracts.grouping import hidden_mapping

Marked = Callable[..., tuple[LoadedContract, tuple[int, int]]]

DECODER = (
    "{kind: decoder, config: {vocab_size: 256, hidden_size: 8, intermediate_size: 8, layers: 1, "
    "heads: §%s, kv_heads: %s, head_dim: 16, max_positions: 512}}"
)
INNER = "model_type: llama, num_attention_heads: §%s, num_key_value_heads: %s"
MODEL = "{kind: transformers, attention: sdpa, config: {%s}}"
SUBJECTS = {
    "subject.heads": "{kind: attention, prefill: a.py:p, decode: a.py:d, "
    "order: {split: 128, tile: 64}, heads: §{query: %s, kv: %s, dim: 16}}",
    "subject.config.heads": DECODER,
    "subject.config.num_attention_heads": MODEL % INNER,
    "subject.config.text_config.num_attention_heads": MODEL
    % f"model_type: gemma3, text_config: {{{INNER}}}",
}


def _with(marked: Marked, subject: str) -> tuple[LoadedContract, tuple[int, int]]:
    changes = [("{kind: decoder, preset: tiny, order: {split: 128, tile: 64}}", subject)]
    if "kind: attention" in subject:
        changes += [(", temperatures: [1.0, 0.7]", ""), ("max_abs_dlogp", "max_abs")]
    if "kind: transformers" in subject:
        changes += [("decode, batched, chunked(7)", "decode, chunked(7)")]
    return marked(*changes)


@pytest.mark.parametrize("key", SUBJECTS)
@pytest.mark.parametrize(
    ("query", "kv"),
    [(4, 2), (9, 3), (16, 4), (8, 2), (4, 4), (6, 3), (4, 1), (1, 1)],
)
def test_heads_that_hide_a_wrong_mapping_are_found(
    marked: Marked, key: str, query: int, kv: int
) -> None:
    wrong = [head // kv for head in range(query)]
    hidden = kv > 1 and wrong == [head // (query // kv) for head in range(query)]
    loaded, place = _with(marked, SUBJECTS[key] % (query, kv))
    notes = [each for each in lint(loaded) if "for each of" in each.message]
    assert [(each.line, each.col, each.key) for each in notes] == [(*place, key)] * hidden
    for each in notes:
        assert f"{query} query heads are {kv} for each of {kv} KV heads" in each.message
        assert f"{2 * query} and {kv} would tell them apart" in each.message


@pytest.mark.parametrize("query", ["4", "'4'", "true", "4.0"])
def test_a_model_without_such_heads_is_left_alone(marked: Marked, query: str) -> None:
    """The class of a model has its own default, and what is no number is the class's to refuse."""
    alone = f"model_type: llama, num_attention_heads: §{query}"
    if query != "4":
        alone += ", num_key_value_heads: 2"
    loaded, _ = _with(marked, MODEL % alone)
    assert list(hidden_mapping(loaded.contract)) == []


@pytest.mark.parametrize(("most", "told"), [(9, True), (10, False)])
def test_encoders_of_about_one_length_are_told(marked: Marked, most: int, told: bool) -> None:
    pair = "{kind: attention, prefill: a.py:p, decode: a.py:d, heads: {query: 4, kv: 2, dim: 8}, "
    loaded, place = _with(marked, f"{pair}causal: false, cross: §[3, {most}]}}")
    found = [each for each in lint(loaded) if each.key == "subject.cross"]
    assert [(each.line, each.col) for each in found] == [place] * told
    assert all("3 to 10 would do" in each.message for each in found)


@pytest.mark.parametrize("name", library.names())
def test_no_contract_of_the_library_has_them(name: str) -> None:
    assert list(hidden_mapping(load(find(name)).contract)) == []


def test_no_preset_has_them() -> None:
    from kvparity.subjects.decoder.presets import PRESETS  # imports torch: only here

    assert [n for n, each in PRESETS.items() if each.heads == each.kv_heads**2 > 1] == []
