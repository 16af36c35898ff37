"""A Hugging Face checkpoint folder: ``config.json`` and safetensors, nothing else.

Local files only; no pickle, no remote code.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kvparity.core.errors import UnsupportedError
from kvparity.core.jsonfile import read_object, weight_map
from kvparity.subjects.decoder.config import DecoderShape
from kvparity.subjects.decoder.hf_config import from_hf
from kvparity.subjects.decoder.weights import DecoderWeights, Shape, assemble, tensor_shapes

INDEX = "model.safetensors.index.json"
_STORED = {"F64", "F32", "F16", "BF16"}


class _Slice(Protocol):
    """A stored tensor that is not read yet."""

    def get_shape(self) -> Sequence[int]: ...

    def get_dtype(self) -> str: ...


class _File(Protocol):
    def get_slice(self, name: str) -> _Slice: ...

    def get_tensor(self, name: str) -> Tensor: ...


def read_config(folder: Path) -> DecoderShape:
    """The configuration of a checkpoint folder."""
    if not folder.is_dir():
        raise UnsupportedError(f"no checkpoint folder {folder}")
    return from_hf(read_object(folder / "config.json"), where=str(folder / "config.json"))


def load(
    folder: Path, dtype: torch.dtype, device: torch.device
) -> tuple[DecoderShape, DecoderWeights]:
    """Read a checkpoint and round its tensors to ``dtype``.

    Raises ``UnsupportedError`` for a folder or a feature that cannot be used, and for a checkpoint
    that is not what its configuration says: missing, extra or misshapen tensors.
    """
    config = read_config(folder)
    shapes = tensor_shapes(config)
    with ExitStack() as stack:
        where: dict[str, _File] = {}
        for path, names in _files(folder).items():
            try:
                file = stack.enter_context(safe_open(path, framework="pt", device=str(device)))
            except (SafetensorError, OSError) as error:
                raise UnsupportedError(f"{path} cannot be read as safetensors: {error}") from error
            held = set(file.keys())
            if names is not None and names - held:
                raise UnsupportedError(
                    f"{path} lacks {_some(names - held)}, which {INDEX} says it has"
                )
            where |= dict.fromkeys(held if names is None else names, file)
        tied_head = config.tied and "lm_head.weight" in where
        _compare_names(
            folder, set(shapes), set(where) - ({"lm_head.weight"} if tied_head else set())
        )
        for name, shape in shapes.items():
            _check_tensor(folder, where[name].get_slice(name), name, shape)

        def get(name: str) -> Tensor:
            return where[name].get_tensor(name).to(dtype).contiguous()

        weights = assemble(config, get)
        if tied_head and not torch.equal(get("lm_head.weight"), weights.embed):
            raise UnsupportedError(
                f"{folder}: tie_word_embeddings is true, but lm_head.weight differs from "
                "model.embed_tokens.weight"
            )
    return config, weights


def _files(folder: Path) -> dict[Path, set[str] | None]:
    """The safetensors files, each with the names that the index gives it (None: no index)."""
    index, single = folder / INDEX, folder / "model.safetensors"
    if not index.exists():
        if single.exists():
            return {single: None}
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        found = f"; {', '.join(pickled[:3])} is pickle and is never loaded" if pickled else ""
        raise UnsupportedError(f"{folder} holds neither model.safetensors nor {INDEX}{found}")
    files: dict[Path, set[str] | None] = {}
    for name, file in weight_map(index).items():
        if not (folder / file).is_file():
            raise UnsupportedError(f"{index} names {file}, which is not there")
        names = files.setdefault(folder / file, set())
        assert names is not None
        names.add(name)
    return files


def _compare_names(folder: Path, expected: set[str], found: set[str]) -> None:
    # Old Llama checkpoints store the RoPE frequencies, which follow from the configuration.
    found = {name for name in found if not name.endswith(".rotary_emb.inv_freq")}
    if expected - found:
        raise UnsupportedError(
            f"{folder} lacks {_some(expected - found)}, which its config.json needs"
        )
    if found - expected:
        raise UnsupportedError(
            f"{folder} holds {_some(found - expected)}, which its config.json does not explain"
        )


def _check_tensor(folder: Path, stored: _Slice, name: str, shape: Shape) -> None:
    if tuple(stored.get_shape()) != shape:
        raise UnsupportedError(
            f"{folder}: {name} is {list(stored.get_shape())}, "
            f"its config.json makes it {list(shape)}"
        )
    if stored.get_dtype() not in _STORED:
        raise UnsupportedError(
            f"{folder}: {name} is stored as {stored.get_dtype()}; expected {', '.join(_STORED)}"
        )


def _some(names: set[str]) -> str:
    first = sorted(names)[:3]
    more = f" and {len(names) - len(first)} more" if len(names) > len(first) else ""
    return ", ".join(first) + more
