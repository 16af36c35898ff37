"""Defects in code that is not written for them: transformers' masks, the text of a kernel."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from planting import Told, ToldSession, chunk, one
from torch import Tensor
from transformers import masking_utils

from kvparity.controls import exponent
from kvparity.controls.base import PlantedSession
from kvparity.controls.transformers import window_one_short
from kvparity.plan.schedule import Layout, Member, Step
from kvparity.subjects.base import UnsupportedError
from kvparity_kernels.attention import kernels

MEMBERS = [Member("a", 30, 9), Member("b", 30, 9)]


class Sliding(ToldSession):
    """Asks transformers for the mask of its windows, as a model does; keeps what each shows."""

    def __init__(self, windows: Sequence[int]) -> None:
        super().__init__(Told())
        self.windows = windows
        self.shown: list[int] = []

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        for window in self.windows:
            mask = masking_utils.sliding_window_overlay(window)
            self.shown.append(sum(bool(mask(0, 0, 20, torch.tensor(k))) for k in range(21)))
        return super().forward(step, ids)


@pytest.mark.parametrize(
    ("step", "shown"),
    [
        ((one(0, 4),), [1, 1, 2, 6]),
        ((one(0, 4), one(1, 6)), [1, 1, 2, 6]),
        ((chunk(0, 0, 4),), [1, 2, 3, 7]),
        ((one(0, 4), chunk(1, 2, 4)), [1, 2, 3, 7]),  # no decoding step
    ],
)
def test_a_window_is_one_key_short_in_decoding_steps(step: Step, shown: list[int]) -> None:
    subject: Any = Told()
    inner = Sliding([1, 2, 3, 7])
    subject.session = lambda members, layout: inner
    session = window_one_short(subject).session(MEMBERS, Layout())
    whole = masking_utils.sliding_window_overlay
    rows = torch.cat(list(session.forward(step, [[1] * (s.stop - s.start) for s in step])))
    assert inner.shown == shown
    assert rows[:, 0].tolist() == [p for s in step for p in s.rows]
    assert masking_utils.sliding_window_overlay is whole


def test_without_a_window_there_is_none_to_shorten() -> None:
    session = window_one_short(Told()).session(MEMBERS, Layout())
    assert len(list(session.forward((chunk(0, 0, 3),), [[1, 2, 3]]))) == 1
    with pytest.raises(UnsupportedError, match="a model with a sliding window"):
        list(session.forward((one(0, 3),), [[1]]))


def test_a_session_that_cannot_be_used_again_says_so() -> None:
    once: Any = PlantedSession(object())  # type: ignore[arg-type] # neither reset nor adopt
    for use in (once.reset, lambda: once.adopt(1, 0, 2)):
        with pytest.raises(UnsupportedError, match="cannot be reset or shared"):
            use()


# The text of the attention kernels


def other_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    file = tmp_path / "kernels.py"
    file.write_text(text)
    monkeypatch.setattr(kernels, "__file__", str(file))


def test_a_kernel_without_the_line_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path(str(kernels.__file__)).read_text(encoding="utf-8")
    other_text(tmp_path, monkeypatch, text.replace("tl.exp2(s - shift", "tl.exp2(s-shift"))
    with pytest.raises(UnsupportedError, match="are not the text that this defect changes"):
        exponent._kernels.__wrapped__()


def test_the_changed_text_stands_beside_the_other_and_can_be_read() -> None:
    changed = exponent._kernels.__wrapped__()
    assert changed.decode_split is not kernels.decode_split
    line = "        p = tl.where(s == -float('inf'), 0.0, exp2_polynomial(s - shift[:, None]))\n"
    assert line in inspect.getsource(changed.split_partial.fn)  # as Triton reads it
    assert line not in inspect.getsource(kernels.split_partial.fn)
