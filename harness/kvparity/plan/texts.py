"""Texts of a contract as token ids: by the checkpoint's own tokenizer, or byte by byte without one.

It happens once, before anything is planned, so that all that follows sees ids and their number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from kvparity.core import offline
from kvparity.core.errors import UnsupportedError
from kvparity.core.jsonfile import read_object
from kvparity_contracts.json_types import JsonObject
from kvparity_contracts.loader import LoadedContract
from kvparity_contracts.workloads import Workload

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
"""A checkpoint with one of these has a tokenizer."""
BYTES = "each UTF-8 byte is one id: there is no tokenizer"
Ids = tuple[int, ...]
T = TypeVar("T")


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
    if folder is None or not any((folder / name).exists() for name in FILES):
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
    offline.ensure()
    for name in ("config.json", "tokenizer_config.json"):
        fetched = offline.fetches(read_object(folder / name)) if (folder / name).exists() else None
        if fetched is not None:
            raise UnsupportedError(f"{folder / name}: {fetched}; nothing is fetched here")
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise UnsupportedError(
            f"{folder} has a tokenizer, and reading it needs transformers: {error}; install "
            "kvparity[transformers], or give prompts as ids"
        ) from error

    def guarded(what: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:  # other people's code, templates and files
            words = " ".join(str(error).split())[:300]
            raise UnsupportedError(
                f"the tokenizer of {folder} {what}: {type(error).__name__}: {words}; give prompts "
                "as ids"
            ) from error

    tokenizer = guarded(
        "cannot be loaded",
        lambda: AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        ),
    )
    chat = getattr(tokenizer, "chat_template", None) is not None

    def encode(text: str) -> Ids:
        if not chat:
            return tuple(guarded("refuses a text", lambda: tokenizer(text)["input_ids"]))
        said = [{"role": "user", "content": text}]
        return tuple(
            guarded(
                "refuses a text in its chat template",
                lambda: tokenizer.apply_chat_template(
                    said, add_generation_prompt=True, tokenize=True, return_dict=False
                ),
            )
        )

    how = "and its chat template" if chat else "which has no chat template"
    return encode, f"the checkpoint's {type(tokenizer).__name__} {how}"
