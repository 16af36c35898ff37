"""Sessions that are used again or share tokens: what they keep shows in the rows."""

from __future__ import annotations

import pytest
import torch
from small_records import INDEX, TOKENS, Pretender, record
from torch import Tensor
from toy import Toy
from toy_cache import VOCAB

from kvparity.subjects.base import SubjectError, UnsupportedError


@pytest.mark.parametrize(
    ("defect", "path", "rows"),
    [
        # Slots keep the other tokens of the first use, which every row sees.
        ("keeps-old", "reset", 8),
        # The last of two adopted tokens is the first once more; the other prompt is too short.
        ("adopts-short", "prefix(2)", 4),
        # The donor writes its fourth token over the sequence's own, which the last two rows see.
        ("shares-slots", "prefix(2)", 2),
        ("shares-slots", "prefix-paged(2)", 2),
    ],
)
def test_what_a_session_keeps_or_shares_shows(defect: str, path: str, rows: int) -> None:
    wanted = record("decode")
    found = record(path, Toy(defect))
    assert int((found.digests != wanted.digests).sum()) == rows
    assert torch.equal(record(path).digests, wanted.digests)


def test_a_session_that_is_used_once_is_neither_reset_nor_shared() -> None:
    for path in ("reset", "prefix(2)"):
        with pytest.raises(UnsupportedError, match="the toy is used once"):
            record(path, Toy("one-use"))
        with pytest.raises(UnsupportedError, match="cannot be reset or shared"):
            record(path, Pretender("one-use"))
    assert record("decode", Toy("one-use")).index == INDEX


def test_a_cache_where_none_was_asked_for_is_a_subject_error() -> None:
    with pytest.raises(SubjectError, match="without a cache, but the session has one"):
        record("uncached", Toy("always-caches"))


def test_the_first_use_computes_other_tokens_at_every_position() -> None:
    seen: list[list[int]] = []

    class Listening(Toy):
        def embed(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            seen.append(ids.tolist())
            return super().embed(ids, positions)

    record("reset", Listening())
    flat = [token for ids in seen for token in ids]
    half = len(flat) // 2
    assert flat[half:] == [t for own in TOKENS for t in own[:-1]]
    assert flat[:half] == [(t + 1) % VOCAB for t in flat[half:]]


def test_a_donor_shares_the_first_tokens_and_no_other() -> None:
    seen: list[list[int]] = []

    class Listening(Toy):
        def embed(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            seen.append(ids.tolist())
            return super().embed(ids, positions)

    record("prefix(2)", Listening())
    own = TOKENS[0]
    assert seen[:4] == [[*own[:2], own[2] + 1], [own[2]], [own[3]], [own[3] + 1]]
    assert seen[4:6] == [[t] for t in own[4:6]]
    assert [len(ids) for ids in seen[6:]] == [1] * 4  # the prompt of one token has no prefix
