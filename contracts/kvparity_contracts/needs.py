"""What a control needs of a contract, in words: read off its row, so that no fact stands twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kvparity_contracts.controls.base import CACHING, DECODING, TOGETHER, Control
from kvparity_contracts.features import FEATURES

_PATHS = (
    (CACHING, "a path that reads a cache"),
    (DECODING, "a path that decodes"),
    (TOGETHER, "a path that computes sequences together"),
)
_KEYS = {
    "any": "",
    "whole-tile": "a sequence longer than one tile",
    "tile": "a sequence longer than one tile",
    "split": "a sequence longer than one split",
    "window": "a sequence longer than the window",
    "page": "a sequence longer than one page",
    "ahead": "more generated tokens than a row sees ahead",
}


def needs(control: Control) -> str:
    """All that a contract must have for the control to show, such as ``rings, and …``."""
    said = [FEATURES[each][0] for each in FEATURES if each in control.features]
    wanted = [each for each in (*said, *_asked(control)) if each]
    *most, last = wanted or ["nothing more"]
    return f"{', '.join(most)}, and {last}" if most else last


def either(words: Sequence[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _asked(control: Control) -> Iterator[str]:
    if "order" in control.relations:
        others = [each for each in control.relations if each != "order"]
        audits = [_check(others)] if others else []
        yield either(["an order check with more keys than one tile", *audits])
        return
    if control.tempered:
        yield "a temperature other than 1"
    if "invariance" not in control.relations:
        yield _check(control.relations)
    if control.relations in (("audit",), ("parity",)):
        return
    yield _on(control)
    if control.sequences > 1:
        yield f"prompts of {control.sequences} lengths"
    yield _KEYS[control.keys]
    if control.fewest > 2:
        yield f"a sequence of at least {control.fewest + 1} tokens"
    if control.generate > 1:
        yield f"at least {control.generate} generated tokens"


def _check(relations: Sequence[str]) -> str:
    """``an accuracy or liveness check``."""
    return f"{'an' if relations[0][0] in 'aeiou' else 'a'} {either(relations)} check"


def _on(control: Control) -> str:
    for paths, words in _PATHS:
        if set(paths) <= set(control.paths):
            more = [each for each in control.paths if each not in paths]
            return either([words, *(f"path {each}" for each in more)])
    return f"path {either(control.paths)}" if control.paths else ""
