from __future__ import annotations

from importlib import resources
from typing import Any

import pytest

from kvparity.plan.workload import fill, text_tokens
from kvparity_contracts.workloads import LARGEST_BYTE, Workload

TEXT = resources.files("kvparity").joinpath("data/prompts.txt").read_bytes()


def workload(**keys: Any) -> Workload:
    return Workload.model_validate({"name": "w", "generate": 4} | keys)


def test_the_text_is_real_text() -> None:
    assert len(TEXT.decode()) > 1000
    assert len(set(TEXT)) > 40


@pytest.mark.parametrize("length", [1, 64, len(TEXT), 2 * len(TEXT) + 3])
def test_text_tokens_are_a_stretch_of_the_text(length: int) -> None:
    found = bytes(text_tokens(0, "w/0", length))
    assert len(found) == length
    assert found in TEXT * 4


def test_text_tokens_depend_on_seed_and_name_alone() -> None:
    # A longer prompt begins with the shorter one, so lengths can be compared.
    assert text_tokens(1, "w/0", 300)[:40] == text_tokens(1, "w/0", 40)
    starts = {text_tokens(s, n, 64) for s in (0, 1) for n in ("w/0", "w/1")}
    assert len(starts) == 4


def test_fill_names_and_fills_each_sequence() -> None:
    found = fill(workload(prompt_tokens=[3, 17], pad=["left"]), seed=2, vocab=256)
    assert found.ids == ("w/0", "w/1")
    assert found.prompts == (text_tokens(2, "w/0", 3), text_tokens(2, "w/1", 17))
    assert [found.length(0), found.length(1), found.longest] == [7, 21, 21]
    assert found.pad == ("left",)


def test_fill_takes_given_ids_and_texts() -> None:
    assert fill(workload(prompts=[[5, 0, 9]]), seed=0, vocab=10).prompts == ((5, 0, 9),)
    assert fill(workload(texts=["hé"]), seed=0, vocab=256).prompts == (tuple("hé".encode()),)


@pytest.mark.parametrize(
    ("keys", "vocab", "bad"),
    [
        ({"prompts": [[1], [5, 10]]}, 10, "prompt 1 holds token id 10"),
        ({"texts": ["hé"]}, 128, "prompt 0 holds token id 195"),
        ({"prompt_tokens": [30]}, 32, "prompt 0 holds token id"),
    ],
)
def test_fill_refuses_ids_outside_the_vocabulary(
    keys: dict[str, Any], vocab: int, bad: str
) -> None:
    with pytest.raises(ValueError, match=f"workload w: {bad}.*vocabulary has {vocab} ids"):
        fill(workload(**keys), seed=0, vocab=vocab)
    # The control: without a vocabulary only the lengths count.
    assert fill(workload(**keys), seed=0, vocab=0).generate == 4


def test_the_largest_byte_of_the_text_is_known_to_the_linter() -> None:
    text = resources.files("kvparity").joinpath("data/prompts.txt").read_bytes()
    assert max(each for each in text if each < 128) == LARGEST_BYTE
