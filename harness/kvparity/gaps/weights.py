"""Two checkpoints, tensor by tensor: names, shapes, dtypes, bits; and one fingerprint of each.

One pair of tensors is held at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kvparity.core.bits import differing, ulps
from kvparity.core.errors import UnsupportedError
from kvparity.core.jsonfile import read_object

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
PACKED = getattr(torch, "float4_e2m1fn_x2", None)
"""Two numbers in a byte, which torch stores and does not read."""
Status = Literal["equal", "bits", "dtype", "shape", "only in A", "only in B"]
Read = Mapping[str, "StoredTensor"]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is not read yet."""

    file: Path
    name: str

    def tensor(self) -> Tensor:
        """Read it, on the CPU.

        Raises:
            UnsupportedError: the file is damaged.
        """
        try:
            with safe_open(self.file, framework="pt") as file:
                found: Tensor = file.get_tensor(self.name)
                return found
        except (SafetensorError, OSError) as error:
            raise UnsupportedError(f"{self.file}: {self.name} cannot be read: {error}") from error


@dataclass(frozen=True)
class TensorDifference:
    """One name. ``differing``: share of elements with other bits (other values, where the dtypes
    differ). ``max_abs``: largest distance of these, in float64; infinite beside a NaN.
    ``max_ulps``: of one dtype's own grid. None: not measured, as of two float4 in one byte."""

    name: str
    status: Status
    shape: tuple[tuple[int, ...], ...]
    dtype: tuple[str, ...]
    differing: float | None = None
    max_abs: float | None = None
    max_ulps: int | None = None


@dataclass(frozen=True)
class CheckpointComparison:
    """All names, those that differ first. ``tied``: whether each side's head is its embedding."""

    differences: tuple[TensorDifference, ...]
    equal: int
    fingerprints: tuple[str, str]
    tied: tuple[bool, bool]

    @property
    def same(self) -> bool:
        """Every tensor has equal bits."""
        return not self.differences


def stored(folder: Path) -> Read:
    """The tensors of a checkpoint's safetensors files, by name.

    Raises:
        UnsupportedError: no folder, no safetensors, no tensor, a damaged file, or a name in two
            files.
    """
    if not folder.is_dir():
        raise UnsupportedError(f"{folder} is no folder; expected a checkpoint with safetensors")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UnsupportedError(f"{folder} has no *.safetensors; nothing else is read")
    found: dict[str, StoredTensor] = {}
    for path in files:
        with ExitStack() as stack:
            try:
                names = list(stack.enter_context(safe_open(path, framework="pt")).keys())
            except (SafetensorError, OSError) as error:
                raise UnsupportedError(f"{path} is no whole safetensors file: {error}") from error
        for name in names:
            if name in found:
                raise UnsupportedError(f"{name} is in {found[name].file} and in {path}")
            found[name] = StoredTensor(path, name)
    if not found:
        raise UnsupportedError(f"{folder} has *.safetensors, and no tensor in them")
    return found


def compare(a: Path, b: Path) -> CheckpointComparison:
    """Both checkpoints. A head that one of them leaves to its embedding is that embedding.

    Raises:
        UnsupportedError: one of them cannot be read.
    """
    left, right = stored(a), stored(b)
    tied = _is_tied(a, left), _is_tied(b, right)
    found = list(_differences(_with_head(left, tied[0]), _with_head(right, tied[1])))
    return CheckpointComparison(
        differences=tuple(each for each in found if each.status != "equal"),
        equal=sum(each.status == "equal" for each in found),
        fingerprints=(fingerprint(left), fingerprint(right)),
        tied=tied,
    )


def fingerprint(tensors: Read) -> str:
    """Of all names, dtypes, shapes and bits, whatever files they are in: 16 hexadecimal digits."""
    made = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].tensor()
        made.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        made.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return made.hexdigest()[:16]


def _is_tied(folder: Path, tensors: Read) -> bool:
    """The config says so, or the head is not there."""
    said = False
    if (folder / "config.json").exists():
        said = read_object(folder / "config.json").get("tie_word_embeddings") is True
    return said or (HEAD not in tensors and EMBEDDING in tensors)


def _with_head(tensors: Read, tied: bool) -> Read:
    if tied and HEAD not in tensors and EMBEDDING in tensors:
        return {**tensors, HEAD: tensors[EMBEDDING]}
    return tensors


def _differences(left: Read, right: Read) -> Iterator[TensorDifference]:
    for name in sorted(left.keys() | right.keys()):
        if name not in left or name not in right:
            side: Status = "only in A" if name in left else "only in B"
            tensor = (left if name in left else right)[name].tensor()
            yield TensorDifference(name, side, (tuple(tensor.shape),), (_word(tensor),))
        else:
            yield difference(name, left[name].tensor(), right[name].tensor())


def difference(name: str, a: Tensor, b: Tensor) -> TensorDifference:
    """Of two tensors of one name."""
    shapes, dtypes = (tuple(a.shape), tuple(b.shape)), (_word(a), _word(b))
    if a.shape != b.shape:
        return TensorDifference(name, "shape", shapes, dtypes)
    if a.dtype != b.dtype:
        if PACKED in (a.dtype, b.dtype):
            return TensorDifference(name, "dtype", shapes, dtypes)
        wide, other = _wide(a), _wide(b)
        apart = (wide != other) & ~(wide.isnan() & other.isnan())
        return TensorDifference(name, "dtype", shapes, dtypes, *_far(a, b, apart))
    apart = _other_bits(a, b)
    if not bool(apart.any()):
        return TensorDifference(name, "equal", shapes, dtypes, 0.0, 0.0, 0)
    if a.dtype is PACKED:
        return TensorDifference(name, "bits", shapes, dtypes, _share(apart))
    most = int(ulps(a, b).max()) if a.dtype in FLOATS else None
    return TensorDifference(name, "bits", shapes, dtypes, *_far(a, b, apart), max_ulps=most)


def _other_bits(a: Tensor, b: Tensor) -> Tensor:
    """By element. Of dtypes without an integer view of their own, byte by byte: ``!=`` would take
    -0 for 0, and a NaN for another one."""
    if a.dtype in FLOATS:
        return differing(a, b)
    left, right = (
        x.contiguous().flatten().view(torch.uint8).view(-1, x.element_size()) for x in (a, b)
    )
    return (left != right).any(-1).view(a.shape)


def _far(a: Tensor, b: Tensor, apart: Tensor) -> tuple[float, float]:
    """(share of elements apart, largest distance of these)"""
    if not bool(apart.any()):
        return 0.0, 0.0
    distance = (_wide(a) - _wide(b)).abs()[apart]
    return _share(apart), float(distance.nan_to_num(torch.inf, torch.inf).max())


def _share(apart: Tensor) -> float:
    return float(apart.double().mean())


def _wide(x: Tensor) -> Tensor:
    """As wide as it gets: complex128 or float64."""
    return x.to(torch.complex128) if x.is_complex() else x.double()


def _word(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
