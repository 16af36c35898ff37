"""Texts of a contract as token ids: by the checkpoint's own tokenizer, or byte by byte without one.

It happens once, before anything is planned, so that all that follows sees ids and their number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from kvparity.core import tokenizer
from kvparity.core.errors import UnsupportedError
from kvparity_contracts.json_types import JsonObject
from kvparity_contracts.loader import LoadedContract
from kvparity_contracts.workloads import ChatMessage, Workload

BYTES = "each UTF-8 byte is one id: there is no tokenizer"
INSTEAD = "give prompts as ids"
Ids = tuple[int, ...]
Prompt: TypeAlias = str | tuple[ChatMessage, ...]
"""A text, or a chat."""


@dataclass(frozen=True)
class TokenisedContract:
    """A contract with its texts as ids. ``by`` says who made them; None: it has no texts.

    ``ids``: of every workload with texts, by its name.
    """

    loaded: LoadedContract
    by: str | None
    ids: dict[str, tuple[Ids, ...]]

    def json(self) -> JsonObject | None:
        """What the report says of it."""
        if self.by is None:
            return None
        ids = {name: [list(each) for each in given] for name, given in self.ids.items()}
        return {"by": self.by, "ids": ids}

    def identity(self) -> dict[str, str]:
        """What names the ids, so that a run is resumed and replayed with the same alone."""
        if self.by is None:
            return {}
        text = json.dumps([self.by, sorted(self.ids.items())])
        return {"texts": hashlib.sha256(text.encode()).hexdigest()}


def given(loaded: LoadedContract) -> TokenisedContract:
    """The contract, its texts made ids.

    Raises:
        UnsupportedError: the checkpoint has a tokenizer that cannot be loaded or refuses a text.
    """
    texts = [each for each in loaded.contract.workloads if each.texts or each.chats]
    if not texts:
        return TokenisedContract(loaded, None, {})
    checkpoint = getattr(loaded.contract.subject, "checkpoint", None)
    folder = None if checkpoint is None else Path(loaded.path).resolve().parent / checkpoint
    if folder is None or not tokenizer.there(folder):
        if chat := next((each.name for each in texts if each.chats), None):
            where = "there is no checkpoint" if folder is None else f"{folder} has none"
            raise UnsupportedError(f"workload {chat}: chats need a tokenizer, and {where}")
        return TokenisedContract(loaded, BYTES, {each.name: _each(each, _bytes) for each in texts})
    encode, by = _tokenizer(folder)
    ids = {each.name: _each(each, encode) for each in texts}
    workloads = tuple(
        each.model_copy(update={"texts": None, "chats": None, "prompts": ids[each.name]})
        if each.name in ids
        else each
        for each in loaded.contract.workloads
    )
    contract = loaded.contract.model_copy(update={"workloads": workloads})
    return TokenisedContract(replace(loaded, contract=contract), by, ids)


def _bytes(prompt: Prompt) -> Ids:
    return tuple(str(prompt).encode())


def _each(workload: Workload, encode: Callable[[Prompt], Ids]) -> tuple[Ids, ...]:
    found = []
    prompts: tuple[Prompt, ...] = workload.texts or workload.chats or ()
    what = "text" if workload.texts else "chat"
    for number, prompt in enumerate(prompts):
        ids = encode(prompt)
        if not ids:
            raise UnsupportedError(
                f"workload {workload.name}: the tokenizer makes no id of {what} {number}"
            )
        found.append(ids)
    return tuple(found)


def _tokenizer(folder: Path) -> tuple[Callable[[Prompt], Ids], str]:
    """How a checkpoint reads a prompt, and who does it in words. No code of the folder is run."""
    found = tokenizer.load(folder, INSTEAD)
    template = getattr(found, "chat_template", None) is not None

    def encode(prompt: Prompt) -> Ids:
        if not template and isinstance(prompt, str):
            what = "refuses a text"
            return tuple(
                tokenizer.guarded(folder, what, INSTEAD, lambda: found(prompt)["input_ids"])
            )
        if not template:
            raise UnsupportedError(f"{folder} has no chat template, which chats need; {INSTEAD}")
        chat = (ChatMessage(role="user", content=prompt),) if isinstance(prompt, str) else prompt
        said = [each.model_dump() for each in chat]
        return tuple(
            tokenizer.guarded(
                folder,
                "refuses a text in its chat template",
                INSTEAD,
                lambda: found.apply_chat_template(
                    said, add_generation_prompt=True, tokenize=True, return_dict=False
                ),
            )
        )

    how = "and its chat template" if template else "which has no chat template"
    return encode, f"the checkpoint's {type(found).__name__} {how}"
