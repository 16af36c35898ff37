"""What devices have decided: which other tiles were seen to give the base's bits, and where.

``rules.json`` has one row for each choice that was measured (``kvparity tiles --measure``) on an
architecture, with a version of Triton and in a format. Only what a row calls equal leaves the base.
Reading the table needs neither torch nor Triton.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvparity_kernels import tiles
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.tiles import BASE, LinearTile, Tiles, candidates

if TYPE_CHECKING:
    import torch

PATH = Path(__file__).with_name("rules.json")
VERSION = 1
DTYPES = ("float32", "float16", "bfloat16")
_EVIDENCE = "docs/results/"
_FEW_ROWS = 64  # a tile for any number of rows is meant for more than these


class RulesError(ValueError):
    """The table is not what it must be; the message names the file and the row."""


@dataclass(frozen=True)
class Rule:
    """One answer of one device.

    ``arch``: as in ``sm_90``; ``triton``: major and minor, as in ``3.6``; ``dtype``: of queries or
    of a linear layer's input; ``choice``: a name of ``choices``; ``equal``: whether all bits were
    those of the base; ``device``: its own name; ``evidence``: the file with the measurement, from
    the root of the repository.
    """

    arch: str
    triton: str
    dtype: str
    choice: str
    equal: bool
    device: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.choice} in {self.dtype} on {self.arch} with Triton {self.triton}"


@lru_cache(maxsize=1)
def choices() -> dict[str, Tiles]:
    """Every choice that is measured, by name, in ascending preference.

    Where two equal choices decide the same thing, the later is taken. First the candidates of
    ``tiles``, whose better ones come first, in reverse; then those for attention again with tiles
    of hidden keys left out, because that was not measured by measuring each alone.
    """
    plain = dict(reversed(candidates().items()))
    both = {
        f"{name},skip_hidden": replace(each, skip_hidden=True)
        for name, each in plain.items()
        if not each.linear and not each.skip_hidden
    }
    # Alone it leaves to the base what any of these decides, so it comes before them.
    return plain | both


def read(path: Path = PATH) -> tuple[Rule, ...]:
    """The rules of a table. Raises ``RulesError`` for whatever is not exactly as specified."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object)
    except (OSError, ValueError) as error:
        raise RulesError(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, dict) or set(found) != {"version", "rules"}:
        raise RulesError(f"{path}: expected an object with the keys version and rules, no others")
    if type(found["version"]) is not int or found["version"] != VERSION:
        raise RulesError(f"{path}: version is {found['version']!r}, expected {VERSION}")
    if not isinstance(found["rules"], list):
        raise RulesError(f"{path}: rules is not a list")
    rules: dict[tuple[str, ...], tuple[int, Rule]] = {}
    for number, row in enumerate(found["rules"], 1):
        try:
            rule = _rule(row)
        except ValueError as error:
            raise RulesError(f"{path}: row {number}: {error}") from error
        key = (rule.arch, rule.triton, rule.dtype, rule.choice)
        before, other = rules.setdefault(key, (number, rule))
        if other is not rule:
            words = (
                "is a duplicate; keep one of them"
                if other.equal == rule.equal
                else "contradicts it; only what was equal on every device of an architecture is "
                "equal there, so keep the row that says false"
            )
            raise RulesError(f"{path}: row {number} ({rule}): row {before} {words}")
    return tuple(rule for _, rule in rules.values())


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"the key {min(twice)!r} occurs twice in one object")
    return dict(pairs)


def _rule(row: object) -> Rule:
    names = [field.name for field in fields(Rule)]
    if not isinstance(row, dict) or set(row) != set(names):
        found = ", ".join(map(repr, row)) if isinstance(row, dict) else repr(row)
        raise ValueError(f"expected an object with the keys {', '.join(names)}; found {found}")
    for name in names:
        value, wanted = row[name], bool if name == "equal" else str
        if type(value) is not wanted or value == "":
            words = "true or false" if wanted is bool else "a text that is not empty"
            raise ValueError(f"{name} is {value!r}, expected {words}")
    rule = Rule(**row)
    if rule.arch == "interpreter":
        raise ValueError("arch is 'interpreter', which shows an algorithm and is no device")
    for name, pattern, such in (
        ("arch", r"sm_[1-9]\d{1,2}", "sm_90"),
        ("triton", r"\d+\.\d+", "3.6"),
    ):
        if not re.fullmatch(pattern, row[name]):
            raise ValueError(f"{name} is {row[name]!r}, expected something like {such!r}")
    if rule.dtype not in DTYPES:
        raise ValueError(f"dtype is {rule.dtype!r}, expected one of {', '.join(DTYPES)}")
    if rule.choice not in choices():
        raise ValueError(
            f"choice is {rule.choice!r}, which is not among those that are measured: "
            f"{'; '.join(choices())}"
        )
    if not rule.evidence.startswith(_EVIDENCE):
        raise ValueError(
            f"evidence is {rule.evidence!r}, expected the path of the measurement, under "
            f"{_EVIDENCE}"
        )
    return rule


@lru_cache(maxsize=1)
def table() -> tuple[Rule, ...]:
    """The packaged table, read once."""
    return read()


def rows_for(arch: str, triton: str, dtype: str) -> tuple[Rule, ...]:
    """What was measured on an architecture, with a version of Triton, in a format."""
    return tuple(r for r in table() if (r.arch, r.triton, r.dtype) == (arch, triton, dtype))


@lru_cache
def in_force(arch: str, triton: str, dtype: str) -> Tiles:
    """The base with every choice whose row says equal, as far as they go together.

    A row that says unequal, or no row, leaves the base. Raises ``RulesError`` if the table is
    damaged.
    """
    return compose(r.choice for r in rows_for(arch, triton, dtype) if r.equal)


def compose(equal: Iterable[str]) -> Tiles:
    """One set of tiles from choices that were each measured equal to the base, alone.

    Prefill, decode and linear are kernels of their own that know nothing of each other's tiles, so
    any of them may run as some equal choice ran it, whatever the others do; nothing else follows
    from rows. Hence one kernel's rows and warps come from one choice, never from two, and are
    only taken with hidden tiles skipped if they were measured so. Linear layers of different
    numbers of rows are launches of their own too, each with one tile.

    The choices are walked from the one that is preferred most; each decides what it names and what
    no other has decided, unless ``skip_hidden``, which holds for prefill and decode alike, has
    been decided otherwise.
    """
    names = set(equal)
    decided: dict[str, Any] = {}
    linear: dict[int, LinearTile] = {}
    for name, each in reversed(choices().items()):
        if name not in names:
            continue
        for rows, tile in each.linear:
            linear.setdefault(rows, tile)
        if decided.get("skip_hidden", each.skip_hidden) != each.skip_hidden:
            continue
        for side in ("prefill", "decode"):
            named = (f"{side}_block_m", f"{side}_warps")
            own = {field: getattr(each, field) for field in named}
            if set(own.values()) != {None} and not own.keys() & decided.keys():
                decided |= own
        decided["skip_hidden"] = each.skip_hidden
    if 0 in linear:
        # Rules are measured under the default order.
        linear.setdefault(_FEW_ROWS, BASE.linear_tile(_FEW_ROWS, ReductionOrder()))
    ordered = sorted(linear.items(), key=lambda entry: (entry[0] == 0, entry[0]))
    return replace(BASE, **decided, linear=tuple(ordered))


@lru_cache
def here(device: torch.device) -> tuple[str, str]:
    """Architecture of a CUDA device and version of Triton, as rows name them."""
    import torch

    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}", triton_version()


@lru_cache(maxsize=1)
def triton_version() -> str:
    """Major and minor of the Triton that is installed; empty where there is none."""
    for name in ("triton", "pytorch-triton"):
        try:
            return ".".join(metadata.version(name).split(".")[:2])
        except metadata.PackageNotFoundError:
            continue
    return ""


def current(device: torch.device, dtype: torch.dtype, order: ReductionOrder | None = None) -> Tiles:
    """The tiles in force: those of ``using``, on CUDA else what the rules allow, else the base.

    Rules are measured under the default order and say nothing about another: beside one, the
    base stays.
    """
    if (forced := tiles.given.get()) is not None:
        return forced
    if device.type != "cuda" or order not in (None, ReductionOrder()):
        return BASE
    return in_force(*here(device), str(dtype).removeprefix("torch."))
