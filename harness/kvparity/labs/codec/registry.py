"""Codecs by name: the project's own, those of other packages, and a class in a file."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import cast

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.labs.codec.protocol import STAGES, Codec
from kvparity.labs.codec.stores import StoreCodec
from kvparity.labs.codec.table import Table
from kvparity.subjects.pair.callables import load_callable
from kvparity_kernels.store import StoreFormat

GROUP = "kvparity.codecs"
STORES = ("float32", "float16", "bfloat16", "fp8_e4m3", "fp8_e5m2", "int8", "int4")
_NAME = re.compile(r"(?P<base>.+?)(?:\((?P<argument>[^()]*)\))?")
_PAIR = re.compile(r"k=(?P<k>.+),\s*v=(?P<v>.+)")
_METHODS = ("bytes_per_token", "calibrate", "encode", "decode")


@dataclass(frozen=True)
class CodecPair:
    """The codec of keys and the codec of values."""

    name: str
    k: Codec
    v: Codec

    @property
    def parts(self) -> tuple[tuple[str, Codec], ...]:
        """By the names that reports use."""
        return (("k", self.k), ("v", self.v))


def find(text: str, base: Path) -> CodecPair:
    """The codecs that ``text`` names: one for both, or ``k=NAME,v=NAME``.

    Raises ``UnsupportedError`` where nothing has the name, and where what has it is no codec.
    """
    both = _PAIR.fullmatch(text.strip())
    if both is not None:
        k, v = find_one(both["k"], base), find_one(both["v"], base)
        return CodecPair(f"k={k.name},v={v.name}", k, v)
    one = find_one(text, base)
    return CodecPair(one.name, one, one)


def defaults(head_dims: Iterable[int]) -> tuple[str, ...]:
    """The codecs of a run that names none: groups are as large as every layer allows, up to 32."""
    whole = math.gcd(*head_dims)
    group = math.gcd(whole, 32)
    return ("fp8_e4m3(head)", f"int8({whole})", f"int4({group})", f"nf4({group})")


def find_one(text: str, base: Path) -> Codec:
    """One codec: ``NAME``, ``NAME(ARGUMENT)``, ``module:Name`` or ``path/to/file.py:Name``.

    A built-in reads its argument itself. Anything else is called with the argument as text, or
    with nothing where there are no brackets. Relative paths start at ``base``.
    """
    text = text.strip()
    found = _NAME.fullmatch(text)
    if found is None:
        raise UnsupportedError(f"{text!r} is no codec name; expected NAME or NAME(ARGUMENT)")
    name, argument = found["base"], found["argument"]
    try:
        if name in STORES:
            return StoreCodec(StoreFormat.parse(text))
        if name == "nf4":
            return Table(_group(text, argument))
        factory = load_callable(name, base) if ":" in name else _offered(name)
    except ValueError as error:
        raise UnsupportedError(str(error)) from error
    try:
        codec = factory() if argument is None else factory(argument)
    except Exception as error:
        raise UnsupportedError(f"codec {text} raised {type(error).__name__}: {error}") from error
    return _checked(text, codec)


def _group(text: str, argument: str | None) -> int:
    if argument is None or not re.fullmatch(r"[1-9][0-9]*", argument):
        raise ValueError(
            f"{text!r}: nf4 needs the number of elements that share a scale, such as nf4(32)"
        )
    return int(argument)


def _offered(name: str) -> Callable[..., object]:
    """What an installed package offers under ``name``."""
    entries = entry_points(group=GROUP)
    offers: Mapping[str, EntryPoint] = {e.value: e for e in entries if e.name == name}
    if not offers:
        known = ", ".join([*STORES, "nf4", *sorted(entry.name for entry in entries)])
        raise ValueError(
            f"no codec is called {name!r}; known are {known}, and path/to/file.py:Name"
        )
    if len(offers) > 1:
        raise ValueError(f"codecs called {name!r} are offered twice: {', '.join(sorted(offers))}")
    (entry,) = offers.values()
    try:
        factory: Callable[..., object] = entry.load()
    except ImportError as error:
        raise SubjectError(f"codec {name!r} does not import: {error}") from error
    return factory


def _checked(text: str, codec: object) -> Codec:
    """``codec``, once it has what a codec has."""
    missing = [m for m in _METHODS if not callable(getattr(codec, m, None))]
    missing += [m for m in ("name", "stages") if not hasattr(codec, m)]
    if missing:
        raise UnsupportedError(f"{text} is no codec: it has no {', '.join(missing)}")
    found = cast(Codec, codec)
    unknown = [stage for stage in found.stages if stage not in STAGES]
    if unknown:
        raise UnsupportedError(
            f"codec {text} has the stages {', '.join(map(repr, unknown))}; known are "
            f"{', '.join(STAGES)}"
        )
    return found
