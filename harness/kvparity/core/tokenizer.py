"""The tokenizer of a folder. Nothing is fetched, and no code of the folder is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from kvparity.core import offline
from kvparity.core.errors import UnsupportedError
from kvparity.core.jsonfile import read_object

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
"""A folder with one of these has a tokenizer."""
T = TypeVar("T")


class FolderTokenizer(Protocol):
    """What is asked of transformers' tokenizers."""

    def __call__(self, text: str) -> Mapping[str, Sequence[int]]: ...  # noqa: D102

    def apply_chat_template(  # noqa: D102
        self,
        conversation: Sequence[Mapping[str, str]],
        *,
        add_generation_prompt: bool,
        tokenize: bool,
        return_dict: bool,
    ) -> Sequence[int]: ...

    def decode(  # noqa: D102
        self,
        token_ids: Sequence[int],
        *,
        skip_special_tokens: bool,
        clean_up_tokenization_spaces: bool,
    ) -> str: ...

    def convert_ids_to_tokens(self, ids: int) -> str | None: ...  # noqa: D102


def there(folder: Path) -> bool:
    """Whether a folder has a tokenizer."""
    return any((folder / name).exists() for name in FILES)


def load(folder: Path, instead: str) -> FolderTokenizer:
    """The tokenizer of ``folder``. ``instead``: what to do where it does not work, for messages.

    Raises:
        UnsupportedError: transformers is missing, the tokenizer is damaged, or it needs code.
    """
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
            f"kvparity[transformers], or {instead}"
        ) from error
    found: FolderTokenizer = guarded(
        folder,
        "cannot be loaded",
        instead,
        lambda: AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        ),
    )
    return found


def guarded(folder: Path, what: str, instead: str, call: Callable[[], T]) -> T:
    """What ``call`` gives.

    Raises:
        UnsupportedError: it raised; the message says ``what`` the tokenizer of ``folder`` did.
    """
    try:
        return call()
    except Exception as error:  # other people's code, templates and files
        words = " ".join(str(error).split())[:300]
        raise UnsupportedError(
            f"the tokenizer of {folder} {what}: {type(error).__name__}: {words}; {instead}"
        ) from error
