"""Workloads: which prompts, and how many tokens are generated from each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from kvparity_contracts.base import (
    Fault,
    Model,
    Positive,
    Several,
    Slug,
    ToTuple,
    exactly_one,
    no_duplicates,
)
from kvparity_contracts.prompt_files import SCHEMA

TokenId = Annotated[int, Field(ge=0)]
Ids = Several[TokenId]
LARGEST_BYTE = 125
"""The largest ASCII byte of the text that prompts of given lengths are cut from."""
Text = Annotated[str, Field(min_length=1)]


class ChatMessage(Model):
    """What one side of a chat said."""

    role: Text
    """Who said it: `system`, `user`, `assistant`, or what else the chat template knows."""
    content: Text
    """What was said."""


class ChosenRows(Model):
    """Which rows of a prompt are compared, beside those from which tokens are generated."""

    edges: bool = True
    """On both sides of edges: the first of tiles, splits, pages, windows and blocks of queries,
    each twice as far out, and the last."""
    random: Annotated[int, Field(ge=0, le=4096)] = 0
    """So many more of each prompt, drawn by the seed."""


class Workload(Model):
    """Some prompts and what is generated from them."""

    name: Slug
    """Name of the workload: lower-case letters, digits, hyphens and underscores."""
    prompt_tokens: Several[Positive] | None = None
    """Lengths of prompts, in tokens; the tokens are bytes of real text, chosen by the seed."""
    prompts: Annotated[Several[Ids], WithJsonSchema(SCHEMA)] | None = None
    """Prompts as lists of token ids; or `{file: NAME}`, a file with a text or a chat a line."""
    texts: Several[Text] | None = None
    """Prompts as text: the checkpoint's tokenizer and chat template make the ids; where it has
    none, each UTF-8 byte is a token."""
    chats: Several[Several[ChatMessage]] | None = None
    """Prompts as chats, lists of `{role: …, content: …}`: the checkpoint's chat template makes the
    ids."""
    generate: Positive
    """Tokens generated after each prompt."""
    rows: ChosenRows | None = None
    """For long prompts: rows of the prompt that are compared as well; attention of all others is
    computed only where something depends on it. Without it, no row before the last of a prompt
    is compared, and all are computed."""
    pad: Annotated[
        tuple[Literal["left", "right"], ...], AfterValidator(no_duplicates), ToTuple
    ] = ()
    """Sides on which the path `padded` fills the rectangle: left, right or both."""

    def own_faults(self) -> Iterator[Fault]:
        """What contradicts itself."""
        return exactly_one(self, "prompt_tokens", "prompts", "texts", "chats")

    @property
    def source(self) -> Literal["prompt_tokens", "prompts", "texts", "chats"]:
        """Which of the four keys says what the prompts are."""
        if self.prompt_tokens is not None:
            return "prompt_tokens"
        if self.prompts is not None:
            return "prompts"
        return "texts" if self.texts is not None else "chats"

    def lengths(self) -> tuple[int, ...]:
        """Tokens of each prompt, without what is generated."""
        if self.prompt_tokens is not None:
            return self.prompt_tokens
        if self.prompts is not None:
            return tuple(map(len, self.prompts))
        chats = ("".join(said.content for said in chat) for chat in self.chats or ())
        return tuple(len(text.encode()) for text in self.texts or chats)

    def totals(self) -> tuple[int, ...]:
        """Tokens of each sequence, prompt and continuation together."""
        return tuple(length + self.generate for length in self.lengths())
