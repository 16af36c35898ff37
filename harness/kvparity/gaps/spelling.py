"""The text of tokens: by the checkpoint's tokenizer, or that of another folder."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from kvparity.core import tokenizer
from kvparity.core.errors import UnsupportedError
from kvparity.gaps.token import Token, TokenText

BROKEN = "\ufffd"
"""What a decoder writes for bytes that are no whole character."""
INSTEAD = "name another by --tokenizer"


class Spelling:
    """A folder's tokenizer.

    Raises:
        UnsupportedError: the folder has none, or one that cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        if not tokenizer.there(folder):
            known = ", ".join(tokenizer.FILES[:3])
            raise UnsupportedError(
                f"{folder} has no tokenizer; expected a folder with one of {known}, …"
            )
        self._tokenizer = tokenizer.load(folder, INSTEAD)
        self._folder = folder
        self._of = cache(self._text)

    def of(self, token: Token) -> Token:
        """The token with its text.

        Raises:
            UnsupportedError: the tokenizer fails.
        """

        def read() -> TokenText:
            before, after = (tuple(map(self._of, ids)) for ids in (token.before, token.after))
            return TokenText(before, self._of(token.token_id), after)

        what = "cannot tell a token's text"
        text = tokenizer.guarded(self._folder, what, INSTEAD, read)
        return replace(token, text=text)

    def _text(self, number: int) -> str | None:
        """Of one id in the middle of a text: some decoders drop a space at its beginning.

        A part of a character has no text of its own: it is what the tokenizer calls it.
        """
        try:
            piece = self._tokenizer.convert_ids_to_tokens(number) if number >= 0 else None
        except IndexError:  # beyond the vocabulary, of those written in Python
            piece = None
        if not piece:
            return None
        once, twice = (
            self._tokenizer.decode(
                [number] * times, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
            for times in (1, 2)
        )
        text = twice.removeprefix(once)
        return str(piece) if BROKEN in text or not text else text


def line(token: Token, most: int | None = None) -> str:
    """The text between those beside it, ``"before «token» after"``, or "" without a tokenizer.

    What is not printable is escaped (``\\n``, ``\\x1b``, ``\\u202e``), so is a backslash; an id
    without text is ``<id>``. ``most``: characters, where the ends are cut by …
    """
    if token.text is None:
        return ""
    middle = f"«{_shown(token.text.token, token.token_id)}»"
    left, right = (
        "".join(map(_shown, texts, ids))
        for texts, ids in ((token.text.before, token.before), (token.text.after, token.after))
    )
    if most is None:
        return left + middle + right
    if len(middle) > most:
        return f"{middle[: most - 2]}…»"
    room = most - len(middle)
    if len(left) + len(right) > room:
        half = max(room // 2, room - len(right))
        left = left if len(left) <= half else ("…" + left[len(left) - half + 1 :] if half else "")
        room -= len(left)
        right = right if len(right) <= room else (right[: room - 1] + "…" if room else "")
    return left + middle + right


def _shown(text: str | None, number: int) -> str:
    if text is None:
        return f"<{number}>"
    return "".join(
        each
        if each.isprintable() and each != "\\"
        else each.encode("unicode_escape").decode("ascii")
        for each in text
    )
