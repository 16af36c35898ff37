"""What decides a verdict, which wins where several do, and what a certificate says."""

from __future__ import annotations

import itertools
import json

import pytest
from order_trees import TreeOracle

from kvparity.relations.order import OrderReport, Part, SumTree, certify
from kvparity.relations.order.canonical import chain
from kvparity.relations.order.report import PARTS, Drawn, Replayed
from kvparity.relations.order.stats import Stats

# verdicts: each cause alone gives its verdict, and of two the one that stands first wins

CAUSES: dict[str, tuple[str, str]] = {
    "key order=different": ("different-order", "key order: K"),
    "key order=not-a-tree": ("not-a-tree", "key order: K"),
    "denominator=not-a-tree": ("not-a-tree", "denominator: E"),
    "division=not-a-tree": ("not-a-tree", "division: D"),
    "denominator=different": ("different-order", "denominator: E"),
    "products=different": ("different-order", "products: P"),
    "rescale edges=different": ("different-order", "rescale edges: R"),
    "key order=undeclared": ("undeclared-order", "key order: K"),
    "rescale edges=undeclared": ("undeclared-order", "rescale edges: R"),
    "replay=decode": ("not-a-tree", "replay: the key order gives 7 of 8 of decode's results"),
    "replay=prefill": ("not-a-tree", "replay: the key order gives 7 of 8 of prefill's results"),
    "division=different": ("same-order-different-bits", "division: D"),
    "drawn=2": ("same-order-different-bits", "2 of 9 random calls differ, in 5 of 90 values"),
    "drawn=0": ("same-order-different-bits", "9 of 9 random calls differ, in 5 of 90 values"),
    "products=not-measured": ("consistent", "4 of 5 parts are the same"),
    "replay=skipped": ("consistent", "5 of 5 parts are the same"),
}
SEEN = dict(zip(PARTS, "KEPRD", strict=True))


def report(*causes: str, **more) -> OrderReport:
    said = dict(cause.split("=") for cause in causes)
    parts = tuple(Part(n, said.get(n, "same"), seen=SEEN[n] * (n in said)) for n in PARTS)
    replayed = [Replayed("decode", 8, 8), Replayed("prefill", 8, 8)]
    if (which := said.get("replay")) == "skipped":
        replayed = [Replayed(r.side, 0, 0, "reason") for r in replayed]
    elif which:
        replayed = [Replayed(r.side, r.equal - (r.side == which), 8) for r in replayed]
    equal = {"2": 7, "0": 0, None: 9}[said.get("drawn")]
    drawn = Drawn(9, equal, 90, 0 if equal == 9 else 5)
    return OrderReport(20, 3, 2, {"kind": "x"}, parts, tuple(replayed), drawn, **more)


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_has_its_verdict_and_its_reason(cause):
    found = report(cause)
    verdict, words = CAUSES[cause]
    assert found.verdict == verdict
    assert found.reason.startswith(words)
    assert ("products" in found.reason) == (cause.startswith("products"))


def test_of_two_causes_the_one_that_stands_first_decides():
    for first, second in itertools.combinations(CAUSES, 2):
        if first.split("=")[0] != second.split("=")[0]:
            found = report(second, first)
            assert (found.verdict, found.reason.startswith(CAUSES[first][1])) == (
                CAUSES[first][0],
                True,
            ), (first, second)


def test_what_is_consistent_says_what_was_measured():
    assert report().json()["first_key"] == 0
    assert report().reason == (
        "5 of 5 parts are the same, and so are the bits of 9 random calls"
    )  # fmt: skip
    assert report("products=not-measured", "division=not-measured").reason == (
        "3 of 5 parts are the same, and so are the bits of 9 random calls; "
        "not measured: products, division"
    )


@pytest.mark.parametrize(
    ("equal", "total", "skipped", "complete"),
    [(8, 8, "", True), (7, 8, "", False), (0, 8, "", False), (0, 0, "why", True)],
)
def test_a_replay_is_complete_if_all_results_are_the_trees_or_it_was_left_out(
    equal, total, skipped, complete
):
    assert Replayed("decode", equal, total, skipped).complete is complete


def test_the_document_says_what_the_report_does():
    """Every number stands at its name; a tree of 512 terms is written out, one of 513 is not."""
    cost = {"recover decode": Stats(11, 12, 13, 0.123456)}
    large, larger = chain(512), chain(513)
    parts = (
        Part("key order", "different", "a", "b", "c", {"decode": large, "prefill": larger}, cost),
        *report("division=not-measured").parts[1:],
    )
    base = report("drawn=2", first=4, notes=("n1", "n2"))
    found = OrderReport(
        base.keys, base.rows, base.batch, base.subject, parts, base.replayed, base.drawn,
        first=base.first, notes=base.notes,
    ).json()  # fmt: skip
    assert json.loads(json.dumps(found)) == found
    trees = found["parts"][0].pop("trees")
    assert found == {
        "keys": 20,
        "prefill_rows": 3,
        "batch": 2,
        "verdict": "different-order",
        "reason": "key order: c",
        "subject": {"kind": "x"},
        "parts": [
            {
                "name": "key order",
                "status": "different",
                "decode": "a",
                "prefill": "b",
                "seen": "c",
                "cost": {
                    "recover decode": {
                        "probes": 11,
                        "launches": 12,
                        "rounds": 13,
                        "seconds": 0.1235,
                    }
                },
            },
            *(part.json() for part in parts[1:]),
        ],
        "replay": [
            {"side": "decode", "equal": 8, "total": 8, "skipped": ""},
            {"side": "prefill", "equal": 8, "total": 8, "skipped": ""},
        ],
        "random_calls": {"calls": 9, "equal": 7, "values": 90, "differing": 5},
        "adder": "not measured",
        "first_key": 4,
        "notes": ["n1", "n2"],
    }
    assert trees == {
        name: {
            "fingerprint": tree.fingerprint,
            "terms": tree.n,
            "depth": tree.n - 1,
            "fan_out": 2,
            "shape": f"(.*{tree.n})",
            "text": text,
        }
        for name, tree, text in (("decode", large, large.text), ("prefill", larger, None))
    }


# certificates


@pytest.mark.parametrize("n", [2, 3, 9])
def test_a_certificate_counts_what_it_asked(n):
    oracle = TreeOracle(chain(n))
    oracle.launches = 5
    found = certify(oracle, chain(n))
    assert (found.holds, found.seen) == (True, "")
    assert (found.stats.probes, found.stats.launches, found.stats.rounds) == (n - 1, 1, 1)
    assert 0 <= found.stats.seconds < 60


def test_one_term_has_one_tree_and_nothing_is_asked():
    oracle = TreeOracle(SumTree(1, ()))
    found = certify(oracle, SumTree(1, ()))
    assert (found.holds, found.seen, found.stats, oracle.launches) == (True, "", Stats(), 0)


@pytest.mark.parametrize("at", range(4))
def test_each_answer_of_a_certificate_counts(at):
    """One answer is one too small or too large; the pair is named."""
    tree = chain(5)
    for off in (-1, 1):

        class Spoilt(TreeOracle):
            def __call__(self, pairs, off=off):
                answers = super().__call__(pairs).copy()
                answers[at] += off
                return answers

        found = certify(Spoilt(tree), tree)
        assert not found.holds
        assert found.stats.launches == 1
        assert found.seen == (
            f"terms 0 and {at + 1} meet in a partial sum of {at + 2 + off} terms, not {at + 2} "
            "(1 of 4 pairs differ)"
        )
