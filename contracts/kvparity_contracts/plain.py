"""Foreign text made fit for one line of a terminal: names, messages, words of exceptions.

What a contract, a checkpoint or a library says may hold escape sequences, control characters or
marks that turn the direction of writing; printed as they are, they could rewrite the screen or
show another text than the one that is there.
"""

from __future__ import annotations

import unicodedata

MOST = 600
"""Characters of a message that are shown; a longer one is cut in its middle."""
LINE = 4000
"""Characters of a line of a report that are shown."""
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories: controls, formats (bidi among them), halves, private, none, separators."""


def plain(text: object, most: int = MOST) -> str:
    """``text`` on one line, with what cannot be seen written out, cut to ``most`` characters.

    Line breaks and tabs become spaces; other characters that are no text become ``\\x1b`` or
    ``\\u202e``, as Python writes them.
    """
    return _shown(" ".join(_cut(str(text), most).splitlines()).replace("\t", " "), most)


def plain_lines(text: str, most: int = LINE) -> str:
    """Every line of ``text`` made plain; its line breaks stay."""
    return "\n".join(_shown(line, most) for line in text.split("\n"))


def _shown(line: str, most: int) -> str:
    if line.isascii() and line.isprintable():
        return _cut(line, most)
    return _cut("".join(_seen(each) for each in _cut(line, most)), most)


def _seen(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = (most - 5) // 2
    return f"{text[:half]} ... {text[len(text) - half :]}"
