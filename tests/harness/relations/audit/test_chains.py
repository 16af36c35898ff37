"""Chains of matrix instructions: steps, start and the order along K."""

from __future__ import annotations

from chain_cases import MMA, TCGEN, found, wgmma

from kvparity.relations.audit.chains import family

DESCRIPTORS = "bfe.u32 %r9, %r8, 4, 15;\n" + "".join(
    f"add.s32 %r{20 + i}, %r9, {2 * i};\ncvt.u64.u32 %rd{20 + i}, %r{20 + i};\n"
    f"or.b64 %rd{30 + i}, %rd{20 + i}, 4611686293305294848;\n"
    for i in range(3)
)


def test_wgmma_starts_from_zero_and_walks_k() -> None:
    text = DESCRIPTORS + wgmma("0", "%rd30") + wgmma("%p1", "%rd31") + wgmma("%p1", "%rd32")
    (chain,) = found(text)
    assert (chain.start, chain.steps, chain.b) == ("zero", 3, (0, 2, 4))
    assert family(chain.op) == "wgmma"


def test_another_order_along_k_shows() -> None:
    text = DESCRIPTORS + wgmma("0", "%rd30") + wgmma("%p1", "%rd32") + wgmma("%p1", "%rd31")
    assert found(text)[0].b == (0, 4, 2)


def test_a_second_zero_starts_another_chain() -> None:
    text = DESCRIPTORS + wgmma("0", "%rd30") + wgmma("0", "%rd31") + wgmma("%p1", "%rd32")
    assert sorted(each.steps for each in found(text)) == [1, 2]


def test_wgmma_carries_what_came_before() -> None:
    text = wgmma("%p1", "%rd30", a="{%r5,%r6,%r7,%r8}")
    (chain,) = found(text)
    assert (chain.start, chain.a) == ("carried", ())
    assert chain.op.endswith("A in registers")


def test_descriptors_whose_constants_are_summed_by_the_compiler() -> None:
    text = "".join(f"add.s64 %rd{30 + i}, %rd7, {4611686293305294848 + 2 * i};\n" for i in range(2))
    assert found(text + wgmma("0", "%rd30") + wgmma("%p1", "%rd31"))[0].b == (0, 2)


def test_descriptors_from_different_places_show_no_order() -> None:
    text = wgmma("0", "%rd30") + wgmma("%p1", "%rd31")
    assert found(text)[0].b == ()


def test_mma_sync_from_zero_and_carried() -> None:
    zero = "mov.b32 %r50, 0;\nmov.b32 %r1, %r50;\n"
    text = zero + MMA.format(1) * 2 + MMA.format(11)
    assert [(each.start, each.steps) for each in found(text)] == [("carried", 1), ("zero", 2)]
    # A register that is used again is not zero any more.
    assert found(zero + "ld.shared.b32 %r1, [%r9];\n" + MMA.format(1))[0].start == "carried"


def test_tensor_memory_accumulators() -> None:
    constants = "mov.b32 %r3, 68158608;\nmov.pred %p1, 0;\nmov.pred %p2, -1;\n"
    text = constants + TCGEN.format(0, 0, "%p1") + TCGEN.format(0, 8, "%p2")
    (chain,) = found(text)
    assert (chain.start, chain.steps, chain.a) == ("zero", 2, (0, 8))
    assert "m64n64" in chain.op
    assert len(found(constants + TCGEN.format(0, 0, "%p2") + TCGEN.format(64, 8, "%p2"))) == 1
    both = found(constants + TCGEN.format(0, 0, "%p2") + TCGEN.format(64, 8, "%p2"))
    assert (both[0].count, both[0].start) == (2, "carried")


def test_plain_fma_in_scalars_and_in_pairs() -> None:
    scalar = "fma.rn.f32 %r1, %r5, %r6, %r1;\n" * 10
    assert [(c.op, c.steps, c.start) for c in found(scalar)] == [("fma.rn.f32", 10, "carried")]
    mixed = (
        "fma.rn.f32 %r1, %r5, %r6, %r1;\n" * 4
        + "mov.b64 %rd1, {%r1, %r2};\n"
        + "fma.rn.f32x2 %rd1, %rd5, %rd6, %rd1;\n" * 6
    )
    assert [each.steps for each in found(mixed)] == [10]  # the other lane has six: too few
    assert found("fma.rn.f32 %r1, %r5, %r6, %r1;\n" * 7) == ()
