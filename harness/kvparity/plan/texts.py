"""Texts of a contract as token ids: by the checkpoint's own tokenizer, or byte by byte without one.

It happens once, before anything is planned, so that all that follows sees ids and their number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from kvparity.core import tokenizer
from kvparity.core.errors import UnsupportedError
from kvparity_contracts.json_types import JsonObject
from kvparity_contracts.loader import LoadedContract
from kvparity_contracts.workloads import Workload

BYTES = "each UTF-8 byte is one id: there is no tokenizer"
INSTEAD = "give prompts as ids"
Ids = tuple[int, ...]


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
    texts = [each for each in loaded.contract.workloads if each.texts is not None]
    if not texts:
        return TokenisedContract(loaded, None, {})
    checkpoint = getattr(loaded.contract.subject, "checkpoint", None)
    folder = None if checkpoint is None else Path(loaded.path).resolve().parent / checkpoint
    if folder is None or not tokenizer.there(folder):
        return TokenisedContract(loaded, BYTES, {each.name: _each(each, _bytes) for each in texts})
    encode, by = _tokenizer(folder)
    ids = {each.name: _each(each, encode) for each in texts}
    workloads = tuple(
        each.model_copy(update={"texts": None, "prompts": ids[each.name]})
        if each.name in ids
        else each
        for each in loaded.contract.workloads
    )
    contract = loaded.contract.model_copy(update={"workloads": workloads})
    return TokenisedContract(replace(loaded, contract=contract), by, ids)


def _bytes(text: str) -> Ids:
    return tuple(text.encode())


def _each(workload: Workload, encode: Callable[[str], Ids]) -> tuple[Ids, ...]:
    found = []
    for number, text in enumerate(workload.texts or ()):
        ids = encode(text)
        if not ids:
            raise UnsupportedError(
                f"workload {workload.name}: the tokenizer makes no id of text {number}"
            )
        found.append(ids)
    return tuple(found)


def _tokenizer(folder: Path) -> tuple[Callable[[str], Ids], str]:
    """How a checkpoint reads a text, and who does it in words. No code of the folder is run."""
    found = tokenizer.load(folder, INSTEAD)
    chat = getattr(found, "chat_template", None) is not None

    def encode(text: str) -> Ids:
        if not chat:
            what = "refuses a text"
            return tuple(tokenizer.guarded(folder, what, INSTEAD, lambda: found(text)["input_ids"]))
        said = [{"role": "user", "content": text}]
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

    how = "and its chat template" if chat else "which has no chat template"
    return encode, f"the checkpoint's {type(found).__name__} {how}"
