"""What a pair is given for a probe, which of its results are read, and which weights keys get."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from order_pairs import subject
from torch import Tensor

from kvparity.relations.order import NotATree
from kvparity.relations.order.sides import CAPPED_COLD, COLD, PROBED_CAP, Side, places
from kvparity.subjects.pair.model import Pair
from kvparity_kernels.store import decode as decoded

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
HEADS = (4, 2, 8)


@dataclass
class Spy:
    """Keeps what each callable is given; result [row, head, dim] is told by its number."""

    lse: bool = True
    seen: list[tuple[str, Tensor, Tensor, Tensor, dict]] = field(default_factory=list)

    def pair(self) -> Pair:
        def call(name):
            def of(q, k, v, **more):
                self.seen.append((name, q.clone(), k.clone(), v.clone(), more))
                out = torch.arange(q.numel(), dtype=F32).view(q.shape).to(q.dtype)
                return (out, -out[:, :, 0].float() - 1) if self.lse else out

            return of

        return Pair.of(call("prefill"), call("decode"), "its prefill", "its decode")


def side(spy: Spy, which="decode", dtype=F32, *, keys=6, batch=2, rows=1, heads=HEADS, **more):
    return Side(subject(spy.pair(), dtype, heads, **more), which, keys=keys, batch=batch, rows=rows)


def numbers(*shape: int) -> Tensor:
    """Other whole numbers everywhere, small enough for 16 bits and for codes."""
    return (torch.arange(math.prod(shape)) % 61 % 15 - 7.0).view(shape)


# what is given and what is read


@pytest.mark.parametrize("window", [0, 4, 5, 6, 7])
@pytest.mark.parametrize("store", ["", "fp8_e5m2(head)", "int8(4)"])
@pytest.mark.parametrize(("which", "rows"), [("decode", 1), ("prefill", 1), ("prefill", 3)])
def test_a_probe_is_the_last_row_of_a_call_of_the_shape_under_test(which, rows, store, window):
    """6 keys, of which the last row sees those of the window; before it lie heavy ones."""
    spy = Spy()
    probed = side(spy, which, rows=rows, store=store, window=window)
    hidden = {4: 2, 5: 1}.get(window, 0)
    assert (probed.first, probed.keys, probed.total) == (hidden, 6 - hidden, 6)
    q = numbers(2, 4, 8)
    k, v = numbers(2, 6 - hidden, 2, 8), numbers(2, 6 - hidden, 2, 8).flip(1)
    found = probed.run(q, k, v)
    ((name, given_q, given_k, given_v, more),) = spy.seen
    assert (name, probed.calls) == (which, 1)
    assert more.pop("scale") == 8**-0.5
    assert more.pop("window", 0) == window
    each = [0 * k[:, :1]] * hidden
    want_k, want_v = torch.cat([*each, k], 1), torch.cat([*(x + 1 for x in each), v], 1)
    if store:
        format = more.pop("format")
        assert str(format) == store
        for got, scale in ((given_k, "k_scale"), (given_v, "v_scale")):
            scales = more.pop(scale)
            assert scales.shape == ((2,) if format.static else (*got.shape[:-1], 2))
            back = decoded(
                got.flatten(0, -3), scales if format.static else scales.flatten(0, -3), format, F32
            ).view(got.shape)
            got.data = back
    if which == "decode":
        assert torch.equal(more.pop("kv_lens"), torch.tensor([6, 6], dtype=torch.int32))
        assert torch.equal(given_q, q)
        assert torch.equal(given_k, want_k)
        assert torch.equal(given_v, want_v)
    else:
        starts = (more.pop(f"cu_seqlens_{x}") for x in "qk")
        assert [(x.tolist(), x.dtype) for x in starts] == [
            ([0, rows, 2 * rows], torch.int32),
            ([0, 6, 12], torch.int32),
        ]
        assert torch.equal(given_q, torch.stack([q[b] for b in (0, 1) for _ in range(rows)]))
        assert torch.equal(given_k, want_k.flatten(0, 1))
        assert torch.equal(given_v, want_v.flatten(0, 1))
    assert not more
    every = torch.arange(2.0 * rows * 32).view(2, rows, 4, 8)
    assert torch.equal(found.out, every[:, -1])
    assert torch.equal(found.lse, -every[:, -1, :, 0] - 1)


def test_without_a_log_sum_exp_there_is_none():
    found = side(Spy(lse=False)).run(numbers(2, 4, 8), numbers(2, 6, 2, 8), numbers(2, 6, 2, 8))
    assert found.lse is None


@pytest.mark.parametrize("which", ["decode", "prefill"])
def test_sinks_weigh_what_is_asked_and_else_nothing(which):
    """log2 by key head and query head of its group, where there is room for one of the two."""
    spy = Spy()
    probed = side(spy, which, sinks=True, heads=(6, 2, 8))
    data = numbers(2, 6, 8), numbers(2, 6, 2, 8), numbers(2, 6, 2, 8)
    probed.run(*data)
    probed.run(*data, torch.tensor([[-1.0, 0.0], [-3.0, 2.0]]))
    nothing, asked = (each[4]["sinks"] / math.log(2) for each in spy.seen)
    torch.testing.assert_close(nothing, torch.full((6,), COLD))
    torch.testing.assert_close(asked, torch.tensor([-1.0, 0.0, COLD, -3.0, 2.0, COLD]))
    plain = Spy()
    side(plain, which).run(numbers(2, 4, 8), *data[1:])
    assert "sinks" not in plain.seen[0][4]


@pytest.mark.parametrize("store", ["", "fp8_e4m3(head)", "int8(8)"])
@pytest.mark.parametrize("sinks", [False, True])
def test_both_sides_are_given_the_same_random_numbers(store, sinks):
    spy = Spy()
    wide = (4, 2, 64)
    for which, rows in (("decode", 1), ("prefill", 3)):
        probed = side(spy, which, rows=rows, store=store, sinks=sinks, heads=wide, window=5)
        probed.random(torch.Generator().manual_seed(3))
    (_, q, k, v, more), (_, *others, other) = spy.seen
    assert torch.equal(q.repeat_interleave(3, 0), others[0])
    bits = [x.view(torch.uint8) for x in (k, v)]
    assert all(
        torch.equal(x.flatten(0, 1), y.view(torch.uint8))
        for x, y in zip(bits, others[1:], strict=True)
    )
    assert not torch.equal(*bits)
    assert k.shape[:3] == (2, 6, 2)  # what lies before the window, too
    assert ("sinks" in more) == ("sinks" in other) == sinks
    if sinks:
        assert torch.equal(more["sinks"], other["sinks"])
        assert more["sinks"].shape == (4,)
        assert len(set(more["sinks"].tolist())) == 4
    for name in ("k_scale", "v_scale") if store else ():
        mine, its = more[name], other[name]
        assert torch.equal(mine if mine.dim() == 1 else mine.flatten(0, 1), its)
        if mine.dim() == 1:
            assert torch.equal(mine, probed.subject.static_scale(name[0]))
    if store:
        k, v = (
            decoded(
                x.flatten(0, 1), s if s.dim() == 1 else s.flatten(0, 1), more["format"], F32
            )
            for x, s in ((k, more["k_scale"]), (v, more["v_scale"]))
        )  # fmt: skip
    for each in (q, k, v):
        assert abs(float(each.mean())) < 0.15
        assert 0.8 < float(each.std()) < 1.2


# weights

SHAPES = {  # dtype, heads, more: how many patterns fit
    "float32": (F32, (16, 1, 16), {}, 16),
    "few-dimensions": (F32, (16, 1, 4), {}, 4),
    "groups": (F32, (12, 3, 16), {}, 4),
    "16-bit": (BF16, (16, 1, 16), {}, 5),
    "float16-groups": (F16, (4, 2, 16), {}, 2),
    "capped": (F32, (16, 1, 16), {"softcap": 50.0}, 5),
    "capped-16-bit": (BF16, (16, 1, 20), {"softcap": 50.0}, 2),
    "codes": (F32, (16, 2, 16), {"store": "int8(8)"}, 5),
    "codes-16-bit": (F16, (16, 1, 16), {"store": "fp8_e5m2(head)"}, 1),
    "codes-capped": (F32, (4, 1, 16), {"store": "fp8_e4m3(head)", "softcap": 50.0}, 4),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_keys_get_the_weights_that_are_asked_for(shape):
    """Scores by the formula of attention, in float64; heads without a pattern weigh all alike."""
    dtype, heads, more, patterns = SHAPES[shape]
    probed = side(Spy(), "decode", dtype, heads=heads, **more)
    assert probed.patterns == patterns
    rng = np.random.default_rng(0)
    cap = more.get("softcap", 0.0)
    for count in {1, patterns}:
        levels = np.array([0.0, -1.5, -20.25, -30.0])
        log2 = torch.from_numpy(rng.choice(levels, (2, heads[1], count, 6))).float()
        log2[..., 0] = 0.0
        q, k = probed.weighted(log2)
        assert (q.shape, k.shape) == ((2, heads[0], heads[2]), (2, 6, heads[1], heads[2]))
        for x in (q, k):
            assert torch.equal(x, x.to(dtype).float())
        if not probed.plain:
            assert set(k.flatten().tolist()) <= {0.0, 1.0}
        group = heads[0] // heads[1]
        scores = torch.einsum(
            "bgrd,bjgd->bgrj", q.double().view(2, heads[1], group, -1), k.double()
        ) * probed.subject.scale  # fmt: skip
        scores = torch.tanh(scores / cap) * cap if cap else scores
        want = torch.zeros(2, heads[1], group, 6, dtype=torch.float64)
        want[:, :, : group if count == 1 else count] = log2.double()
        torch.testing.assert_close(scores / math.log(2), want, rtol=2.0**-21, atol=0)


@pytest.mark.parametrize("shape", ["few-dimensions", "16-bit", "capped-16-bit"])
def test_more_patterns_than_have_room_are_refused(shape):
    dtype, heads, more, patterns = SHAPES[shape]
    probed = side(Spy(), "decode", dtype, heads=heads, **more)
    log2 = torch.tensor([0.0, -1.0, -2.0, -3.0, 0.0, 0.0])
    probed.weighted(log2.expand(2, 1, patterns, 6).contiguous())
    count = patterns + 1
    words = f"{count} patterns of {1 if probed.plain else 3} weights do not fit"
    with pytest.raises(ValueError, match=words):
        probed.weighted(log2.expand(2, 1, count, 6).contiguous())


@pytest.mark.parametrize(
    ("softcap", "log2", "other"),
    [
        (0.0, -400.0, False),
        (5.0, -6.4, False),
        (5.0, -6.6, True),  # 0.9 * 5 / ln 2 = 6.49
        (5.0, -60.0, True),
        (50.0, -64.0, False),
        (50.0, -66.0, True),
    ],
)
def test_what_a_softcap_leaves_no_room_for_is_asked_behind_another(softcap, log2, other):
    probed = side(Spy(), "prefill", rows=3, softcap=softcap, window=5)
    found = probed.reaching(log2)
    assert (found is not probed) == other
    assert found.subject.softcap == (PROBED_CAP if other else softcap)
    assert (found.which, found.total, found.batch, found.rows) == ("prefill", 6, 2, 3)
    assert probed.cold == (CAPPED_COLD if softcap else COLD)
    assert bool(probed.notes) == other
    assert found.notes is probed.notes
    assert found.known is probed.known
    if other:
        least = {5.0: "7.21", 50.0: "72.1"}[softcap]
        assert list(probed.notes) == [
            f"behind a softcap of {softcap:g} no weight is below 2^-{least}: probes with smaller "
            "ones ran with a softcap of 64"
        ]


def test_a_changed_side_is_the_same_but_for_what_is_named():
    probed = side(Spy(), "prefill", rows=3, softcap=5.0, window=5)
    scaled, capped = probed.changed(scale=0.25), probed.changed(softcap=7.0)
    assert (scaled.subject.scale, scaled.subject.softcap) == (0.25, 5.0)
    assert (capped.subject.scale, capped.subject.softcap) == (8**-0.5, 7.0)
    assert probed.changed(softcap=0.0).subject.softcap == 0.0
    assert [side(Spy(), which).name for which in ("decode", "prefill")] == [
        "its decode",
        "its prefill",
    ]


# heads that must agree


@pytest.mark.parametrize("place", [(0, 0, 0), (0, 1, 7), (1, 3, 3)], ids=str)
@pytest.mark.parametrize("other", [1.0, math.nan, -0.0, math.inf])
def test_heads_of_one_group_that_differ_are_told(place, other):
    probed = side(Spy())
    alike = numbers(2, 2, 1, 8).expand(2, 2, 2, 8).reshape(2, 4, 8).clone()
    alike[0, :2, 5] = math.nan
    alike[:, :, 3] = 2.0
    assert torch.equal(probed.alike(alike).nan_to_num(9), alike[:, ::2].nan_to_num(9))
    alike[place] = alike[place] + 1 if other == 1.0 else other
    if other == 0:  # of either sign: what is read is a number, not its bits
        alike[place[0], place[1] // 2 * 2 : place[1] // 2 * 2 + 2, place[2]] = torch.tensor(
            [0.0, -0.0]
        )
        assert probed.alike(alike).shape == (2, 2, 8)
        return
    with pytest.raises(NotATree, match="decode: query heads of one group gave different results"):
        probed.alike(alike)


def test_a_weight_just_within_nine_tenths_of_a_softcap_needs_no_other():
    log2 = next(x for x in range(5, 99) if 0.9 * (x * math.log(2) / 0.9) == x * math.log(2))
    for softcap, other in ((log2 * math.log(2) / 0.9, False), (0.77 * log2 * (1 - 1e-9), True)):
        probed = side(Spy(), softcap=softcap)
        assert (probed.reaching(-float(log2)) is not probed) == other


@pytest.mark.parametrize("turn", [0, 1, 5])
@pytest.mark.parametrize("sizes", [(3,), (2, 3), (2, 2, 3), (1, 4, 1)])
def test_places_are_all_of_a_box_turned_in_each_dimension(sizes, turn):
    every = list(itertools.product(*map(range, sizes)))
    assert places(*sizes).tolist() == [list(each) for each in every]
    want = [[(x + turn) % n for x, n in zip(each, sizes, strict=True)] for each in every]
    assert places(*sizes, turn=turn).tolist() == want
