"""Every choice beside the base: equal, differs, or cannot; worth nothing without its controls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from kvparity.core.bits import bits
from kvparity.tiles.cases import TileCase
from kvparity.tiles.probe import DEFAULT, BitsDifference, TileProbe, TilesComputed, compare, finite
from kvparity_kernels.relied.triton import REFUSALS
from kvparity_kernels.tiles import BASE, Tiles

Verdict = Literal["equal", "differs", "cannot", "not applied"]
_REFUSED = ("PassManager", "out of resource")  # in errors of Triton that have no class of their own


@dataclass(frozen=True)
class ChoiceAnswer:
    """What one choice gave in one format.

    ``equal``: all bits of the base; ``differs``: see ``first``; ``cannot``: see ``error``, such as
    too little shared memory; ``not applied``: a kernel that it should change was launched as the
    base launches it, so nothing was learnt.
    """

    choice: str
    dtype: str
    answer: Verdict
    compared: int = 0
    differing: int = 0
    first: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class PlantedChange:
    """A planted difference that must be seen, or the base beside itself, which must be equal."""

    name: str
    dtype: str
    good: bool
    seen: str


@dataclass(frozen=True)
class TilesCompared:
    """Answers and controls; ``void`` if one of the controls is not good."""

    answers: tuple[ChoiceAnswer, ...]
    controls: tuple[PlantedChange, ...]

    @property
    def void(self) -> bool:
        """Whether nothing was shown."""
        return not self.controls or not all(control.good for control in self.controls)


def measure(
    choices: dict[str, Tiles],
    cases: Sequence[TileCase],
    dtype: torch.dtype,
    device: torch.device,
    progress: Callable[[str], None] = lambda _: None,
) -> TilesCompared:
    """Compare with the base, in one format, all choices that touch one of the cases.

    Raises what the base itself raises, and errors that no tile explains.
    """
    name = str(dtype).removeprefix("torch.")
    probe = TileProbe(cases, dtype, device)
    progress(f"{name}: base")
    base = probe.run(BASE)
    controls = tuple(_controls(probe, base, name))
    answers = []
    for choice, each in choices.items():
        if probe.touched(each):
            progress(f"{name}: {choice}")
            answers.append(ask(probe, base, choice, each, name))
    return TilesCompared(tuple(answers), controls)


def ask(
    probe: TileProbe, base: TilesComputed, choice: str, which: Tiles, dtype: str
) -> ChoiceAnswer:
    """One choice beside the base."""
    touched = probe.touched(which)
    try:
        found = probe.run(which, set().union(*touched.values()))
    except Exception as error:
        if not _of_tiles(error):
            raise
        words = f"{type(error).__name__}: {error}".strip()
        return ChoiceAnswer(choice, dtype, "cannot", error=words[:1000])
    result = compare(base, found)
    counted = (result.compared, result.differing, result.first)
    if result.differing:
        return ChoiceAnswer(choice, dtype, "differs", *counted)
    # A launch that takes no notice of the tiles has the base's bits, too.
    new = {name for name, facts in found.launched.items() if facts != base.launched[name]}
    if not all(names & new for names in touched.values()):
        return ChoiceAnswer(choice, dtype, "not applied", *counted)
    return ChoiceAnswer(choice, dtype, "equal", *counted)


def _of_tiles(error: Exception) -> bool:
    """Whether the compiler or the device refuses the tiles; a launch gone wrong is no answer."""
    if isinstance(error, tuple(refusal.get() for refusal in REFUSALS)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _REFUSED)


def _controls(probe: TileProbe, base: TilesComputed, dtype: str) -> Iterator[PlantedChange]:
    """The base twice, and every planted difference, each in the part that can show it."""
    good = finite(base)
    yield PlantedChange(
        "finite", dtype, good, "all numbers are finite" if good else "NaN or infinity"
    )
    again = compare(base, probe.run(BASE))
    yield PlantedChange(
        "the base twice", dtype, again.compared > 0 and not again.differing, _seen(again)
    )
    linear = {name for name in probe.calls if name.startswith("linear")}
    if attention := set(probe.calls) - linear:
        other = replace(DEFAULT, split=DEFAULT.split // 2)
        yield _planted("another split", dtype, base, probe.run(BASE, attention, other))
    if linear:
        yield _planted("another order of depth", dtype, base, probe.run_reversed(BASE))
    for name in sorted({name.partition(" ")[0].strip(":") for name in base.results}):
        found = compare(base, _one_bit(base, name))
        yield PlantedChange(f"one bit in {name}", dtype, found.differing == 1, _seen(found))


def _planted(name: str, dtype: str, base: TilesComputed, found: TilesComputed) -> PlantedChange:
    result = compare(base, found)
    return PlantedChange(name, dtype, result.differing > 0, _seen(result))


def _seen(found: BitsDifference) -> str:
    words = f"{found.differing} of {found.compared} numbers differ"
    return words + (f"; first {found.first}" if found.first else "")


def _one_bit(base: TilesComputed, start: str) -> TilesComputed:
    """The base with the last bit of the last number of one operation changed."""
    name = [each for each in base.results if each.startswith(start)][-1]
    *others, last = base.results[name]
    changed = last.clone()
    bits(changed).view(-1)[-1] ^= 1
    return replace(base, results=base.results | {name: (*others, changed)})
