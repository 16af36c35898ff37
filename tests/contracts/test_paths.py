from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvparity_contracts.paths import ABOUT, KINDS, MOST, WITH_ARGUMENT, PathError, PathName
from kvparity_contracts.steps import WrittenSpan, WrittenSteps

plain = [PathName.parse(kind) for kind in KINDS if kind not in (*WITH_ARGUMENT, "steps")]
numbered = [kind for kind in WITH_ARGUMENT if kind != "random"]  # which has a bound of its own
written = st.builds(
    WrittenSteps,
    st.lists(
        st.lists(
            st.builds(lambda i, a, n, d: WrittenSpan(i, a, a + n, d and n == 1), st.integers(0, 30),
                      st.integers(0, 300), st.integers(1, 9), st.booleans()),
            max_size=4,
        ).map(tuple),
        min_size=1,
        max_size=5,
    ).map(tuple).filter(any),
    st.integers(0, 64),
    st.integers(0, 5),
)  # fmt: skip
names = (
    st.sampled_from(plain)
    | st.builds(PathName, st.sampled_from(numbered), st.integers(1, MOST))
    | written.map(lambda steps: PathName("steps", steps=str(steps)))
)


@given(names)
def test_what_is_printed_is_read_back(name: PathName) -> None:
    assert PathName.parse(str(name)) == name


@given(st.text())
def test_any_text_is_a_path_or_a_path_error(text: str) -> None:
    try:
        shown = str(PathName.parse(text))
    except PathError:
        return
    assert shown == text or text.startswith("steps(")


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("chunkd(7)", "chunked(7)"),
        ("chunked 7", "chunked(7)"),
        ("chunked( 7 )", "chunked(7)"),
        ("chunked(007)", "chunked(7)"),
        ("chunked", "chunked(64)"),
        ("chunked(0)", "chunked(64)"),
        ("paged", "paged(16)"),
        ("Decode", "decode"),
        ("decode(3)", "decode"),
        ("padded_left", "padded-left"),
        ("paddedleft", "padded-left"),
        ("zzz", ""),
        ("", ""),
        ("decode\n", "decode"),
        ("chunked(٣)", "chunked(64)"),
        ("random", "random(20)"),
        ("random(1001)", "random(20)"),
        ("steps", ""),
        ("steps()", ""),
        ("steps(0:5-3)", ""),
        ("steps(0:0-4 / page 16)", ""),
        ("steps(page 16 / page 8 / 0:0-4)", ""),
    ],
)
def test_a_wrong_path_is_refused_with_a_suggestion(text: str, suggestion: str) -> None:
    with pytest.raises(PathError) as caught:
        PathName.parse(text)
    assert caught.value.suggestion == suggestion
    if suggestion:
        assert str(PathName.parse(suggestion)) == suggestion


@pytest.mark.parametrize(("kind", "argument"), [("decode", 3), ("chunked", None), ("paged", 0)])
def test_a_path_cannot_be_built_wrong(kind: str, argument: int | None) -> None:
    with pytest.raises(PathError):
        PathName(kind, argument)  # type: ignore[arg-type]  # that is the test


def test_padded_expands_by_the_workload() -> None:
    padded = PathName("padded")
    assert list(map(str, padded.expand(("left", "right")))) == ["padded-left", "padded-right"]
    assert padded.expand(()) == ()
    assert PathName("decode").expand(("left",)) == (PathName("decode"),)
    assert list(map(str, PathName("random", 2).expand(()))) == ["drawn(1)", "drawn(2)"]


def test_every_path_is_described() -> None:
    assert list(ABOUT) == list(KINDS)
