"""How a cache stores a number: as a float, or as a code and a scale."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

FLOATS = ("float32", "float16", "bfloat16")
FLOAT8 = ("fp8_e4m3", "fp8_e5m2")
INTEGERS = ("int8", "int4")

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
    "int8": torch.int8,
    "int4": torch.uint8,
}
_FORMS = (
    "float32, float16, bfloat16, fp8_e4m3(tensor|head), fp8_e5m2(tensor|head), int8(G), int4(G)"
)


@dataclass(frozen=True)
class StoreFormat:
    """What a cache keeps of keys or values.

    ``name``: ``float32``, ``float16``, ``bfloat16`` (a plain cast); ``fp8_e4m3``, ``fp8_e5m2``
    (static scales: one per layer, or with ``per_head`` one per KV head); ``int8``, ``int4``
    (symmetric, with one float32 scale per token, head and ``group`` of so many elements).
    Raises ``ValueError`` for a combination that means nothing.
    """

    name: str
    per_head: bool = False
    group: int = 0

    def __post_init__(self) -> None:
        if self.name not in _DTYPES:
            raise ValueError(f"store format {self.name!r} is unknown; expected one of {_FORMS}")
        if self.per_head and not self.static:
            raise ValueError(f"{self.name} has no scales per head; only fp8 formats have")
        if type(self.group) is not int or self.group < 0:
            raise ValueError(f"the group of {self.name} is {self.group!r}, expected a positive int")
        if self.dynamic and not self.group:
            raise ValueError(
                f"{self.name} needs the number of elements that share a scale, such as "
                f"{self.name}(32)"
            )
        if self.group and not self.dynamic:
            raise ValueError(f"{self.name} has no groups; only int8 and int4 have")

    @classmethod
    def parse(cls, text: str) -> StoreFormat:
        """Read ``bfloat16``, ``fp8_e4m3(head)``, ``int4(32)``; an fp8 alone is per tensor.

        Raises ``ValueError`` in one sentence for anything else.
        """
        found = re.fullmatch(r"([a-z0-9_]+)(?:\(([a-z0-9]+)\))?", text)
        if found is None or found[1] not in _DTYPES:
            raise ValueError(f"store format {text!r} is unknown; expected one of {_FORMS}")
        name, inside = found[1], found[2]
        if name in FLOAT8 and inside in (None, "tensor", "head"):
            return cls(name, per_head=inside == "head")
        if name in INTEGERS and (inside is None or re.fullmatch(r"[1-9][0-9]*", inside)):
            return cls(name, group=int(inside or 0))
        if inside is not None:
            wanted = {FLOAT8: "tensor or head", INTEGERS: "a positive number"}
            for names, words in wanted.items():
                if name in names:
                    raise ValueError(f"{text!r}: {name} takes {words} in brackets, not {inside!r}")
            raise ValueError(f"{text!r}: {name} takes nothing in brackets; write {name}")
        return cls(name)

    def __str__(self) -> str:
        """The canonical text, which ``parse`` reads back."""
        if self.static:
            return f"{self.name}({'head' if self.per_head else 'tensor'})"
        return f"{self.name}({self.group})" if self.dynamic else self.name

    @property
    def static(self) -> bool:
        """Scales are given, ``[kv_heads]``, and the same for all tokens (fp8)."""
        return self.name in FLOAT8

    @property
    def dynamic(self) -> bool:
        """Scales are computed from each token and stored beside its codes (int8, int4)."""
        return self.name in INTEGERS

    @property
    def storage_dtype(self) -> torch.dtype:
        """The dtype of the codes; two int4 share a ``uint8``."""
        return _DTYPES[self.name]

    def storage_width(self, head_dim: int) -> int:
        """Elements of ``storage_dtype`` per token and head; ``ValueError`` as ``groups``."""
        self.groups(head_dim)
        return head_dim // 2 if self.name == "int4" else head_dim

    def groups(self, head_dim: int) -> int:
        """Scales per token and head: 0 where they are not stored with the tokens.

        Raises ``ValueError`` if ``head_dim`` cannot be stored like this.
        """
        if self.name == "int4" and head_dim % 2:
            raise ValueError(f"int4 stores pairs; head dimension {head_dim} is odd")
        if not self.dynamic:
            return 0
        if head_dim % self.group:
            raise ValueError(
                f"{self} cannot store head dimension {head_dim}: {self.group} does not divide it"
            )
        return head_dim // self.group

    def exact_for(self, dtype: torch.dtype) -> bool:
        """Whether every number of ``dtype`` comes back with its bits (NaN as some NaN)."""
        return self.storage_dtype == dtype or (
            self.name == "float32" and dtype in (torch.float16, torch.bfloat16)
        )

    def bytes_per_token(self, kv_heads: int, head_dim: int) -> int:
        """Bytes of the keys (or of the values) of one token, stored scales included.

        Static scales belong to no token and are not counted.
        """
        codes = self.storage_width(head_dim) * self.storage_dtype.itemsize
        return kv_heads * (codes + 4 * self.groups(head_dim))
