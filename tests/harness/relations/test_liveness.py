from __future__ import annotations

from typing import Any

import pytest
import torch
import toy
from asking import probe
from toy import Toy

from kvparity.plan.workload import Prompts
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record.path_run import PathRun, Setting
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.liveness.relation import edges
from kvparity.subjects.base import SubjectError, UnsupportedError
from kvparity_contracts.paths import PathName

LENGTHS, GENERATE = (40, 3), 4
PROMPTS = Prompts("w", ("w/0", "w/1"), tuple(tuple(range(60, 60 + n)) for n in LENGTHS), GENERATE)
PLANS = WorkloadPlans(PROMPTS, 3)
TOKENS = [[*own, 80, 81, 82, 83] for own in PROMPTS.prompts]
CHECK = {"name": "live", "relation": "liveness", "paths": ["decode"]}
EVERY = (
    "decode", "chunked(5)", "batched", "mixed", "paged(2)", "streamed(2)", "reset", "prefix(2)",
    "prefix-paged(2)", "verify(1)",
)  # fmt: skip


def setting(**check: Any) -> Setting:
    return toy.setting(checks=[CHECK | check])


def judged(path: str, *defects: str, window: int | None = None, **check: Any) -> Comparison:
    subject = Toy(*defects, window=window)
    side = PathRun(setting(**check), subject, PLANS, PathName.parse(path), TOKENS)
    return probe(side).found


@pytest.mark.parametrize("path", EVERY)
@pytest.mark.parametrize("window", [None, 4, 20])
def test_a_row_that_depends_on_what_it_sees_holds(path: str, window: int | None) -> None:
    found = judged(path, window=window)
    assert found.outcome == "holds", found.reason
    assert found.tokens == found.details.probes > 0
    assert found.details.dead == found.details.wrongly_alive == ()


def test_edges_of_tiles_and_the_last_keys_are_probed() -> None:
    wide = {"kind": "decoder", "preset": "tiny", "order": {"split": 32, "tile": 16}}
    assert edges(toy.contract(subject=wide)) == (16, 32)
    assert edges(setting().contract) == (16, 16)
    found = judged("decode")
    # Row 42 of the long sequence and row 5 of the short one: first, last, edges and neighbours.
    assert found.tokens == len({0, 1, 15, 16, 17, 31, 32, 33, 40, 41}) + len({0, 1, 3, 4})


@pytest.mark.parametrize(
    ("defect", "window", "words"),
    [
        ("blind-first", None, "position 0 of w/0 (row 42): it is visible, and the row does not"),
        ("window-short", 20, "position 23 of w/0 (row 42): it is visible, and the row does not"),
        ("window-long", 20, "position 22 of w/0 (row 42): it is hidden, and the row depends"),
    ],
)
def test_a_dead_key_and_one_that_should_be_are_found(
    defect: str, window: int | None, words: str
) -> None:
    found = judged("decode", defect, window=window)
    assert found.outcome == "differs"
    assert words in found.reason
    dead, ghosts = found.details.dead, found.details.wrongly_alive
    assert bool(dead) == ("visible" in words)
    assert bool(ghosts) == ("hidden" in words)
    assert found.differing_tokens == len(dead) + len(ghosts)


def test_what_is_hidden_is_counted_apart() -> None:
    found = judged("decode", window=4)  # hidden are 36, 37, 38 of one, 0 and 1 of the other
    words = "the last rows depend on 6 places that they see, and on none of 5 hidden"
    assert (found.reason, found.tokens) == (words, 11)


def test_a_layer_that_nobody_sees_is_named() -> None:
    class Deaf(Toy):
        """Only the newest key is seen, whatever the window says."""

        def first(self, position: int) -> int:
            return position

    side = PathRun(setting(), Deaf(), PLANS, PathName("decode"), TOKENS)
    found = probe(side).found
    assert found.outcome == "differs"
    assert found.details.unseen_layers == (
        "layer 0, by row 42 of w/0",
        "layer 0, by row 5 of w/1",
    )
    assert "no key is seen in layer 0" in found.reason
    assert found.differing_tokens == found.tokens == 14
    assert len(found.details.dead) == 8  # the first of them


def test_probing_leaves_no_trace() -> None:
    side = PathRun(setting(), Toy(window=5), PLANS, PathName("mixed"), TOKENS)
    assert torch.equal(probe(side).candidate.digests, side.run().digests)


def test_what_is_not_steady_is_void() -> None:
    found = judged("decode", "unsteady")
    assert found.outcome == "void"
    assert "does not repeat its bits undisturbed" in found.reason


def test_a_row_that_drifts_while_it_is_probed_is_void() -> None:
    """Every change is seen, for the row changes by itself."""

    class Drifting(Toy):
        def logits(self, q: Any, k: Any, v: Any) -> Any:
            return super().logits(q, k, v) + max(0, self.calls - 12)

    side = PathRun(setting(), Drifting(), PLANS, PathName("decode"), TOKENS)
    found = probe(side).found
    assert (found.outcome, found.reason) == (
        "void",
        "row 42 of w/0 changed after all was restored",
    )


def test_a_probe_that_gives_other_rows_is_an_error() -> None:
    class Doubling(Toy):
        """One row too many as soon as rows are computed again."""

        def logits(self, q: Any, k: Any, v: Any) -> Any:
            if self.calls > 4:
                self.defects = frozenset(["extra-row"])
            return super().logits(q, k, v)

    side = PathRun(setting(), Doubling(), PLANS, PathName("decode"), TOKENS)
    with pytest.raises(SubjectError, match="gave 2 rows of the 1 wanted"):
        probe(side)


def test_rows_that_see_no_cached_key_are_void() -> None:
    found = judged("decode", window=1)
    assert (found.outcome, found.reason) == ("void", "no row was computed that sees a cached key")
    assert found.tokens > 0  # all of them hidden
    assert judged("chunked(44)").reason == "no row was computed that sees a cached key"


def test_a_path_that_does_not_decode_is_void() -> None:
    found = judged("decode", "never-decodes")
    assert found.outcome == "void"
    assert "no decode was observed" in found.reason


def test_layers_can_be_chosen() -> None:
    assert judged("decode", layers=[0]).outcome == "holds"
    with pytest.raises(UnsupportedError, match="layer 1 was asked for, but only 1 layers store"):
        judged("decode", layers=[1])


def test_a_cache_without_layers_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="cannot be inspected layer by layer"):
        judged("decode", "one-use")
