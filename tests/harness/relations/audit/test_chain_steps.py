"""Where a chain starts and ends, and what its offsets are: one thing changed at a time."""

from __future__ import annotations

import pytest
from chain_cases import MMA, TCGEN, found, wgmma

from kvparity.relations.audit.chains import Chain, chains, family
from kvparity.relations.audit.ptx import parse


def steps(*definitions: str) -> tuple[Chain, ...]:
    """One wgmma for each text that defines its descriptor ``%rd30``, ``%rd31``, ..."""
    text = "".join(definitions)
    for i in range(len(definitions)):
        text += wgmma("%p1" if i else "0", f"%rd{30 + i}")
    return found(text)


HIGH = 2**62
HELD = {
    "added": ("add.s64 %rd30, %rd7, 2;", "add.u64 %rd31, %rd7, 6;", (0, 4)),
    "taken away": ("add.s64 %rd30, %rd7, 6;", "add.s64 %rd31, %rd7, -2;", (0, -8)),
    "fixed bits": (f"or.b64 %rd30, %rd7, {HIGH};", f"or.b64 %rd31, %rd7, {HIGH + 6};", (0, 6)),
    "fixed bits with a sign": (
        f"add.s64 %rd30, %rd7, {6 - HIGH};",
        f"add.s64 %rd31, %rd7, {2 - HIGH};",
        (0, -4),
    ),
    "from 2**40 on bits are fixed": (
        f"add.s64 %rd30, %rd7, {2**40 - 1};",
        f"add.s64 %rd31, %rd7, {2**40};",
        (0, 1 - 2**40),
    ),
    "an offset has 14 bits": (
        f"or.b64 %rd30, %rd7, {HIGH + 2**14 - 1};",
        f"or.b64 %rd31, %rd7, {HIGH + 2**14};",
        (0, 1 - 2**14),
    ),
    "copied": ("add.s64 %rd30, %rd7, 2;", "add.s64 %rd8, %rd7, 4;mov.b64 %rd31, %rd8;", (0, 2)),
    "the low half": (
        "add.s32 %r21, %r9, 2;mov.b64 %rd30, {%r21, %r98};",
        "add.s32 %r22, %r9, 4;mov.b64 %rd31, {%r22, %r99};",
        (0, 2),
    ),
    "a field of an address": (
        "bfe.u32 %rd30, %r9, 4, 15;",
        "add.s32 %r22, %r9, 272;bfe.u32 %rd31, %r22, 4, 15;",
        (0, 17),
    ),
    "a field, and an address": ("add.s32 %rd30, %r9, 16;", "bfe.u32 %rd31, %r9, 4, 15;", ()),
    "an address between fields": (
        "add.s32 %r21, %r9, 8;bfe.u32 %rd30, %r21, 4, 15;",
        "add.s32 %r22, %r9, 24;bfe.u32 %rd31, %r22, 4, 15;",
        (),
    ),
    "another field": (
        "add.s32 %r21, %r9, 16;bfe.u32 %rd30, %r21, 5, 15;",
        "add.s32 %r22, %r9, 48;bfe.u32 %rd31, %r22, 5, 15;",
        (),
    ),
    "a field with a sign": (
        "add.s32 %r21, %r9, 16;bfe.s32 %rd30, %r21, 4, 15;",
        "add.s32 %r22, %r9, 48;bfe.s32 %rd31, %r22, 4, 15;",
        (),
    ),
    "shifted": ("shl.b64 %rd30, %rd7, 2;", "shl.b64 %rd31, %rd7, 4;", ()),
    "added registers": ("add.s64 %rd30, %rd7, %rd8;", "add.s64 %rd31, %rd7, %rd9;", ()),
    "numbers": ("mov.b64 %rd30, 16;", "mov.b64 %rd31, 32;", ()),
    "two places": ("add.s64 %rd30, %rd7, 2;", "add.s64 %rd31, %rd8, 4;", ()),
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_offsets_of_descriptors(name: str) -> None:
    *definitions, offsets = HELD[name]
    (chain,) = steps(*(each.replace(";", ";\n") for each in definitions))
    assert (chain.start, chain.steps, chain.b) == ("zero", 2, offsets)


ZEROS = {
    "a number": ("mov.b32 %r1, 0;", "zero"),
    "a float": ("mov.f32 %r1, 0f00000000;", "zero"),
    "a copy": ("mov.b32 %r5, 0f00000000;mov.b32 %r1, %r5;", "zero"),
    "a pair": ("mov.b32 %r5, 0;mov.b64 {%r1, %r2}, {%r5, %r6};", "zero"),
    "the other of a pair": ("mov.b32 %r5, 0;mov.b64 {%r2, %r1}, {%r5, %r6};", "carried"),
    "one": ("mov.b32 %r1, 1;", "carried"),
    "nothing": ("", "carried"),
    "its complement": ("not.b32 %r1, 0;", "carried"),
    "read once it was written": ("mov.b32 %r1, 0;add.f32 %r1, %r1, %r5;", "carried"),
    "a copy that was written": ("mov.b32 %r5, 0;mov.b32 %r1, %r5;activemask.b32 %r1;", "carried"),
    "perhaps": ("@%p1 mov.b32 %r1, 0;", "carried"),
    "perhaps a copy": ("mov.b32 %r5, 0;@%p1 mov.b32 %r1, %r5;", "carried"),
    "zero again": ("mov.b32 %r5, 0;ld.shared.b32 %r1, [%r9];mov.b32 %r1, %r5;", "zero"),
    "a barrier between": ("mov.b32 %r5, 0;mov.b32 %r1, %r5;bar.sync 0;ret;", "zero"),
}


@pytest.mark.parametrize("name", ZEROS)
def test_what_is_known_to_be_zero(name: str) -> None:
    lines, start = ZEROS[name]
    (chain,) = found(lines.replace(";", ";\n") + MMA.format(1))
    assert (chain.start, chain.steps) == (start, 1)


@pytest.mark.parametrize(
    ("before", "start"),
    [
        ("mov.b32 %r5, 0;", "zero"),
        ("mov.f32 %r5, 0f00000000;", "zero"),
        ("mov.b32 %r5, 0;mov.b32 %r5, 0;", "zero"),
        ("@%p1 mov.b32 %r5, 0;", "carried"),
        ("mov.b32 %r5, 0;add.s32 %r5, %r5, 1;", "carried"),
        ("not.b32 %r5, 0;", "carried"),
        ("mov.b32 %r5, 0;activemask.b32 %r5;", "carried"),
        ("mov.b32 %r6, 0;", "carried"),
        ("", "carried"),
    ],
)
def test_a_zero_from_elsewhere_in_the_program(before: str, start: str) -> None:
    step = MMA.format(1)[: -len("{ %r1, %r2 };\n")] + "{ %r5, %r2 };"
    code = parse("{\n" + before.replace(";", ";\n") + step + "\n}").instructions
    assert [each.start for each in chains(code, code[-1:])] == [start]


def test_an_accumulator_of_which_one_register_is_scaled_is_another() -> None:
    for register in ("%r1", "%r9"):
        scaled = f"mul.f32 {register}, {register}, %r8;\n"
        text = wgmma("0", "%rd30") + scaled + wgmma("%p1", "%rd30")
        assert sum(each.count for each in found(text)) == (2 if register == "%r1" else 1)


WIDE = MMA.replace("m16n8k16", "m16n8k8")
STEP = MMA.format(1)
BROKEN = {
    "on": (STEP * 2, [("carried", 2)]),
    "moved": (STEP + "mov.b32 %r11, %r1;\n" + MMA.format(11), [("carried", 2)]),
    "moved perhaps": (
        STEP + "@%p1 mov.b32 %r11, %r1;\n" + MMA.format(11),
        [("carried", 1), ("carried", 1)],
    ),
    "scaled": (STEP + "mul.f32 %r1, %r1, %r6;\n" + STEP, [("carried", 1), ("carried", 1)]),
    "scaled and added": (
        STEP + "fma.rn.f32 %r1, %r1, %r6, %r7;\n" + STEP,
        [("carried", 1), ("carried", 1)],
    ),
    "another copy scaled": (
        STEP + "mov.b32 %r11, %r1;\nmul.f32 %r11, %r11, %r6;\n" + STEP,
        [("carried", 2)],
    ),
    "another instruction": (STEP + WIDE.format(1), [("carried", 1), ("carried", 1)]),
    "two at once": (STEP + MMA.format(11) + STEP + MMA.format(11), [("carried", 2)]),
    "the rest of an accumulator is no zero": (
        "mov.b32 %r5, 0;\nmov.b32 %r1, %r5;\nmov.b32 %r2, %r5;\n" + STEP + MMA.format(2),
        [("zero", 1), ("carried", 1)],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_where_a_chain_ends(name: str) -> None:
    text, seen = BROKEN[name]
    ends = [(c.start, c.steps) for c in found(text) for _ in range(c.count)]
    assert sorted(ends) == sorted(seen * (2 if name == "two at once" else 1))


def tensor(*texts: str) -> list[tuple[str, int, tuple[int, ...], int]]:
    return [(c.start, c.steps, c.a, c.count) for c in found("".join(texts))]


@pytest.mark.parametrize(
    ("texts", "seen"),
    [
        (("mov.pred %p1, 0;\n", TCGEN.format(0, 0, "%p1")), [("zero", 1, (0,), 1)]),
        (
            ("mov.pred %p1, 0;\n", "mov.pred %p1, -1;\n", TCGEN.format(0, 0, "%p1")),
            [("carried", 1, (0,), 1)],
        ),
        (("setp.eq.b32 %p1, %r5, 0;\n", TCGEN.format(0, 0, "%p1")), [("carried", 1, (0,), 1)]),
        (
            ("add.s32 %r2, %r9, 16;\n", TCGEN.format(0, 8, "%p1"), TCGEN.format(0, -4, "%p1")),
            [("carried", 2, (0, -12), 1)],
        ),
        (
            (TCGEN.format(0, 8, "%p1"), TCGEN.format(0, 8, "%p1").replace("[ %r2 + 8 ]", "%r2")),
            [("carried", 2, (0, -8), 1)],
        ),
        (
            ("add.s32 %r2, %r9, 16;\n", TCGEN.format(0, 0, "%p1"),
             TCGEN.format(0, 4, "%p1").replace("%r2", "%r9")),
            [("carried", 2, (0, -12), 1)],
        ),
    ],
    ids=["zero", "written twice", "computed", "back", "no offset", "two registers"],
)  # fmt: skip
def test_chains_in_tensor_memory(texts: tuple[str, ...], seen: list[object]) -> None:
    assert tensor(*texts) == seen


@pytest.mark.parametrize(
    ("m", "n", "formats"), [(64, 8, 0x490), (128, 256, 0x10), (128, 16, 0), (256, 248, 0x490)]
)
def test_the_shape_in_a_descriptor(m: int, n: int, formats: int) -> None:
    """N / 8 stands in 6 bits from bit 17 on, M / 16 in 5 bits from bit 24 on (PTX ISA)."""
    bits = m // 16 << 24 | n // 8 << 17 | formats
    (chain,) = found(f"mov.b32 %r3, {bits};\n" + TCGEN.format(0, 0, "%p1"))
    assert chain.op == f"tcgen05.mma.kind::f16.m{m}n{n}[{bits:#x}]"


@pytest.mark.parametrize(
    "text", ["", "mov.b32 %r3, 1024;\nmov.b32 %r3, 2048;\n", "add.s32 %r3, %r4, 8;\n"]
)
def test_a_shape_that_is_not_one_number_is_not_told(text: str) -> None:
    assert found(text + TCGEN.format(0, 0, "%p1"))[0].op.endswith(".?")


def test_an_address_in_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match="is not an address that is known here"):
        found(TCGEN.format(0, 0, "%p1").replace("[ %r1 + 0 ]", "shared"))


def test_fma_chains_in_pairs_from_zero() -> None:
    pairs = "mov.b32 %r5, 0;\nmov.b64 %rd1, {%r5, %r6};\n" + (
        "fma.rn.f32x2 %rd1, %rd5, %rd6, %rd1;\n" * 8
    )
    assert [(c.op, c.start, c.steps, c.count) for c in found(pairs)] == [
        ("fma.rn.f32", "carried", 8, 1),
        ("fma.rn.f32", "zero", 8, 1),
    ]
    assert found("add.rn.f32 %r1, %r5, %r6, %r1;\n" * 9) == ()
    assert [c.op for c in found("fma.rn.f32 %r1, %r5, %r6, %r1;\n" * 8 + MMA.format(3))] == [
        "mma.m16n8k16.f32.bf16.bf16.f32"
    ]


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        (Chain("mma.x", "zero", 1, (0,), (0,), 3), "mma.x 1 step from zero"),
        (Chain("mma.x", "carried", 2, (), (0, 2), 1), "mma.x 2 steps from carried, B at 0,2"),
        (
            Chain("mma.x", "zero", 2, (0, 4), (0, 2), 1),
            "mma.x 2 steps from zero, A at 0,4, B at 0,2",
        ),
    ],
)
def test_a_chain_in_words(chain: Chain, words: str) -> None:
    assert str(chain) == words


@pytest.mark.parametrize(
    ("op", "kind"),
    [("mma.m16", "mma.sync"), ("wgmma.m64", "wgmma"), ("tcgen05.mma", "tcgen05"), ("x", "x")],
)
def test_the_family_of_an_instruction(op: str, kind: str) -> None:
    assert family(op) == kind
