"""The cell of a cache that is wrong, and the step that wrote it: the planted ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from few import few
from tiny_sides import LENGTHS, sides
from tiny_transformers import tiny
from torch import Tensor

from kvparity.births.account import account
from kvparity.births.document import LocatedCell
from kvparity.births.pairs import pair_account
from kvparity.controls.base import PlantedSession, cache_of, each_session
from kvparity.controls.table import planting
from kvparity.labs.defect_matrix.locating import placed
from kvparity.labs.defect_matrix.work import build
from kvparity.plan.schedule import Step
from kvparity.record.path_run import PathRun
from kvparity.run import control_run
from kvparity.run.cell import cell
from kvparity.run.unit import oracle_values
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.paths import PREFILL, PathName

SLOTS: list[int] = []
"""Where the last planting wrote, by the tables of the cache itself."""


def copied(to: range, of: range, donor: int) -> type[PlantedSession]:
    """Before sequence 0 decodes for the first time, positions ``to`` of layer 1 hold those of
    another."""

    class Copied(PlantedSession):
        done = False

        def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
            if not self.done and any(span.decode and span.sequence == 0 for span in step):
                self.done, cache = True, cache_of(self)
                k, v = cache.read(1, donor, of.start, of.stop)
                cache.write(1, 0, to.start, k, v)
                region = cache.regions[0]  # type: ignore[attr-defined] # the decoder's
                SLOTS[:] = [region.slot(0, position) for position in to]
            return self.inner.forward(step, ids)

    return Copied


PLANTED: dict[str, tuple[range, range, int, str]] = {
    "a page of another sequence": (
        range(4, 8), range(8, 12), 1, "what was written for position 8 of sequence pair/1",
    ),
    "a key too early": (range(3, 5), range(2, 4), 0, "what was written for position 2 of the same"),
}  # fmt: skip


def planted(name: str) -> LocatedCell | None:
    to, of, donor, _ = PLANTED[name]
    fixture = build("plain", "cpu")
    plans, own = fixture.setting.plans("pair"), fixture.known("pair")
    subject = fixture.setting.subject
    bad = each_session(copied(to, of, donor))(subject)
    first = PathRun(fixture.setting, subject, plans, PREFILL, own)
    second = PathRun(fixture.setting, bad, plans, PathName.parse("paged(4)"), own)
    return cell(account(first, second), (first, second), ("prefill", "paged(4)"))


@pytest.mark.parametrize("name", PLANTED)
def test_the_cell_and_the_step_are_the_planted_ones(name: str) -> None:
    to, _, _, holds = PLANTED[name]
    found = planted(name)
    assert found is not None
    assert (found.layer, found.sequence, found.position) == (1, "pair/0", to.start)
    assert (found.slot, found.page_slots, found.part) == (SLOTS[0], 4, "key and value")
    assert found.holds.startswith(holds)
    assert found.written is not None
    assert (found.written.first, found.written.last) == (0, 4)  # its prompt, in one step
    assert found.read_step == found.written.step + 1
    assert found.read_by == 5
    assert f"slot {SLOTS[0]} (page {SLOTS[0] // 4}, place {SLOTS[0] % 4})" in found.words()


CONTROL: dict[str, tuple[str, int, tuple[int, int, int], int | None, str]] = {
    # control: where, position, (step, first, last) that wrote it, step that reads it otherwise
    "stale-slot": ("plain", 29, (0, 0, 29), 1, "what was written for position 0 of the same"),
    "narrow-cache": ("plain", 0, (0, 0, 29), 1, "what was written, in another format"),
    "position-off-by-one": ("plain", 30, (1, 30, 30), None, "a key that is rotated by other"),
    "stale-after-update": ("plain", 0, (4, 0, 29), 5, "what was written for position 0 of the sa"),
    "scale-ignored-in-prefill": ("fp8", 0, (0, 0, 29), 0, "what was written, in another format"),
    "stale-slot of a pair": ("pair", 29, (0, 0, 29), 1, "what was written for position 0 of the"),
}


def of_control(name: str) -> LocatedCell | None:
    fixture, control = CONTROL[name][0], CONTROLS[name.partition(" ")[0]]
    setting, plans, own = placed(fixture, "edge", control.name)
    both = control_run.sides(setting, control, planting(control), plans, own, PREFILL)
    if setting.subject.vocab:
        found = account(*both)
    else:
        found = pair_account(*both, oracle_values(setting, both[1].plans, own))
    return cell(found, both, ("prefill", "decode"))


@pytest.mark.parametrize("name", few(CONTROL, 2))
def test_the_cell_of_a_control(name: str) -> None:
    _, position, written, step, holds = CONTROL[name]
    found = of_control(name)
    assert found is not None
    assert (found.position, found.read_step) == (position, step)
    assert found.written is not None
    assert (found.written.step, found.written.first, found.written.last) == written
    assert found.holds.startswith(holds)


def test_a_prefix_was_written_by_its_donor() -> None:
    setting, plans, own = placed("window", "edge", "ring-stale-on-reuse")
    control = CONTROLS["ring-stale-on-reuse"]
    both = control_run.sides(setting, control, planting(control), plans, own, PREFILL)
    found = cell(account(*both), both, ("prefill", "prefix(8)"))
    assert found is not None
    assert found.written is not None
    assert found.written.sequence == "(donor)/edge/0"
    assert " of (donor)/edge/0)" in found.words()


def test_a_transformers_model_names_its_cell() -> None:
    first, second = sides(tiny("eager", execution="bfloat16"), "prefill", "decode")
    bad = replace(second, subject=planting(CONTROLS["stale-slot"]).rollout(second.subject))
    found = cell(account(first, bad), (first, bad), ("prefill", "decode"))
    assert found is not None
    assert (found.layer, found.position, found.slot) == (0, LENGTHS[0] - 1, None)
    assert found.holds == "what was written for position 0 of the same sequence"
