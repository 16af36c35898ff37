"""Small texts with matrix instructions, and the chains that are found in them."""

from __future__ import annotations

from kvparity.relations.audit.chains import Chain, chains
from kvparity.relations.audit.ptx import parse

MMA = (
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {{ %r{0}, %r2 }}, {{ %r5, %r6 }}, "
    "{{ %r7 }}, {{ %r{0}, %r2 }};\n"
)
TCGEN = "tcgen05.mma.cta_group::1.kind::f16 [ %r1 + {0} ], [ %r2 + {1} ], %rd1, %r3, {2};\n"


def found(text: str) -> tuple[Chain, ...]:
    code = parse("{\n" + text + "\n}").instructions
    return chains(code, code)


def wgmma(scale: str, descriptor: str, a: str = "%rd9") -> str:
    return (
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%r1,%r2}, "
        f"{a}, {descriptor}, {scale}, 1, 1, 0, 0;\n"
    )
