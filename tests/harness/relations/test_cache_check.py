from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import toy
from asking import compare_caches
from toy import Toy

from kvparity.plan.workload import Prompts
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record.cache_snapshot import CachePlace
from kvparity.record.path_run import PathRun
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.cache.compare import CacheDetails
from kvparity.subjects.base import UnsupportedError
from kvparity_contracts.paths import PathName

PROMPTS = Prompts("w", ("w/0", "w/1"), ((5, 6, 7), (9,)), 4)
PLANS = WorkloadPlans(PROMPTS, 3)
TOKENS = [[5, 6, 7, 80, 81, 82, 83], [9, 90, 91, 92, 93]]
EVERY = (
    "decode", "chunked(2)", "batched", "permuted", "mixed", "paged(2)", "streamed(2)", "reset",
    "prefix(2)", "prefix-paged(2)", "verify(1)",
)  # fmt: skip


def side(path: str, *defects: str, window: int | None = None) -> PathRun:
    subject = Toy(*defects, window=window)
    return PathRun(toy.setting(), subject, PLANS, PathName.parse(path), TOKENS)


def compare(path: str, *defects: str, reference: str = "prefill", **more: Any) -> Comparison:
    return compare_caches(side(reference, **more), side(path, *defects, **more))


@pytest.mark.parametrize("path", EVERY)
@pytest.mark.parametrize("window", [None, 3])
def test_what_is_equal_and_as_written_holds(path: str, window: int | None) -> None:
    found = compare(path, window=window)
    assert found.outcome == "holds", found.reason
    assert found.differing_tokens == 0
    # Decoding never computes the last token, and a window forgets what it no longer shows.
    held = [[7, 5], [6, 4]][path not in ("chunked(2)", "permuted")]
    # A window of 3 holds 5: where one side is a token ahead, that side has lost one more.
    longer = [7, 5]
    lengths = (
        held
        if window is None
        else [n - max(0, m - window - 2) for n, m in zip(held, longer, strict=True)]
    )
    assert found.tokens == sum(lengths)
    assert found.details == CacheDetails(layers=1, compared=2 * found.tokens, differing=0)


@pytest.mark.parametrize(
    ("path", "defect", "words", "places"),
    [
        ("decode", "casts", "the path holds another k at position 0 of w/0", 10),
        ("decode", "forgets-last", "the path holds another k at position 5 of w/0", 2),
        ("reset", "keeps-old", "the path holds another k at position 0 of w/0", 10),
        ("prefix(2)", "adopts-short", "the path holds another k at position 1 of w/0", 1),
        ("prefix(2)", "shares-slots", "the path holds another k at position", 2),
        ("decode", "wrong", "k at position 0 of w/0 in layer 0 differs", 10),
    ],
)
def test_a_cache_that_is_wrong_differs(path: str, defect: str, words: str, places: int) -> None:
    found = compare(path, defect)
    assert found.outcome == "differs"
    assert found.reason.startswith(words)
    assert found.differing_tokens == places
    first = found.first_divergence
    assert first is not None
    assert (first.layer, first.part, first.token) == (0, "k", None)
    assert first.reference_bits != first.candidate_bits
    assert first.reference_digest != first.candidate_digest


def test_the_first_place_is_shown_with_both_patterns() -> None:
    found = compare("decode", "forgets-last")
    first = found.first_divergence
    assert first is not None
    assert (first.sequence, first.position) == ("w/0", 5)
    k = Toy().embed(torch.tensor([TOKENS[0][5]]), torch.tensor([5]))[1][0].float()
    assert first.reference == float(k[first.column])
    assert (first.candidate, first.candidate_bits) == (0.0, "0x00000000")


def test_outputs_may_be_right_where_the_cache_is_wrong() -> None:
    right = side("decode").run()
    wrong = side("decode", "forgets-last").run()
    assert torch.equal(right.digests, wrong.digests)


def test_both_sides_are_held_against_what_was_written() -> None:
    left = side("prefill", "casts"), side("decode", "casts")
    found = compare_caches(*left)
    assert found.outcome == "differs"
    assert found.reason.startswith("the reference holds another k")


def test_a_window_that_loses_a_key_too_early_differs() -> None:
    found = compare("decode", "loses-first", window=4)
    assert found.outcome == "differs"
    assert found.reason == (
        "the path no longer holds position 3 of w/0 in layer 0, which the next query would see"
    )


def test_a_side_that_tells_nothing_is_void() -> None:
    found = compare("decode", "silent")
    assert found.outcome == "void"
    assert "the path does not report what it writes" in found.reason


def test_equal_work_is_void() -> None:
    found = compare("decode", reference="decode")
    assert (found.outcome, found.reason) == ("void", "both sides ran the same steps")
    found = compare("decode", "never-decodes")
    assert found.outcome == "void"
    assert "no decode was observed" in found.reason
    assert compare("decode", "never-decodes", "casts").outcome == "differs"  # a bit was seen


def test_what_was_told_before_a_reset_is_told_no_more() -> None:
    class Quiet(Toy):
        """Silent from its first reset on."""

        def session(self, *given: Any) -> Any:
            session = super().session(*given)
            reset = session.reset

            def silenced() -> None:
                self.defects |= {"silent"}
                reset()

            session.reset = silenced
            return session

    quiet = PathRun(toy.setting(), Quiet(), PLANS, PathName("reset"), TOKENS)
    found = compare_caches(side("prefill"), quiet)
    assert found.outcome == "void"
    assert "the path does not report what it writes" in found.reason


def test_positions_that_only_one_side_holds_are_not_compared() -> None:
    long, short = side("prefill").take_snapshot(), side("decode").take_snapshot()
    empty = replace(short, is_held=torch.zeros_like(short.is_held))
    assert compare_caches(side("prefill"), side("decode"), (long, empty)).reason == (
        "the path holds nothing at the end"
    )
    found = compare_caches(side("prefill"), side("decode"), (long, short))
    assert found.tokens == 10  # not 12


def test_what_nobody_wrote_differs() -> None:
    long, short = side("prefill").take_snapshot(), side("decode").take_snapshot()
    short = replace(short, is_written=short.is_written.clone())
    short.is_written[0, 2] = False
    found = compare_caches(side("prefill"), side("decode"), (long, short))
    assert found.reason == ("the path holds position 2 of w/0 in layer 0, which nobody wrote")


def test_a_kept_place_is_held_whole_as_read_and_as_written() -> None:
    place = CachePlace(0, 1, 2)
    held = side("decode", "casts").take_snapshot(frozenset([place]))
    read, written = held.values[place]
    assert torch.equal(read[0], written[0].bfloat16().float())
    assert torch.equal(read[1], written[1])


def test_no_copy_of_the_cache_is_kept() -> None:
    held = side("decode").take_snapshot()
    assert held.values == {}
    assert sum(x.numel() for x in held.tensors().values()) == 12 * (2 + 2 + 1 + 1)


def test_a_cache_without_layers_is_refused() -> None:
    one = PathRun(toy.setting(), Toy("one-use"), PLANS, PathName("decode"), TOKENS)
    with pytest.raises(UnsupportedError, match="cannot be inspected layer by layer"):
        one.take_snapshot()
