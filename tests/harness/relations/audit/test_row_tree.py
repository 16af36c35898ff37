"""The tree of a row of attention: read off compiled kernels, and as the kernels' table has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from audit_cases import ORDER, SHAPE, Planted, pair

from kvparity.relations.audit.ptx import Instruction
from kvparity.relations.audit.request import Request
from kvparity.relations.audit.row_tree import read
from kvparity.relations.audit.signature import Signature
from kvparity.relations.audit.views import AuditSide
from kvparity_kernels.row_trees import RowKey, RowTree, table
from kvparity_kernels.rules import triton_version

Part = tuple[Instruction, ...]


def walk(sides: dict[Request, AuditSide], arch: str, side: int) -> Signature:
    return sides[pair(arch)[side]].walk


@pytest.mark.parametrize("side", [0, 1], ids=["prefill", "decode"])
@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
def test_the_table_has_what_is_compiled(
    arch: str, side: int, sides: dict[Request, AuditSide]
) -> None:
    fixed = (16, ORDER.block_m, ORDER.num_warps, ORDER.tile, SHAPE.head_dim)
    found = read(walk(sides, arch, side))
    known = {key.triton for key in table()}
    if triton_version() in known:
        assert found == table().get(RowKey(arch, triton_version(), *fixed))
    if arch != "sm_100":
        assert found is not None
        assert found.columns == ORDER.tile


def test_other_warps_have_a_row_of_their_own(
    planted: dict[str, Planted], sides: dict[Request, AuditSide]
) -> None:
    request = planted["num_warps"].faulty[1]
    fixed = (16, ORDER.block_m, request.order.num_warps, ORDER.tile, SHAPE.head_dim)
    found = table()[RowKey("sm_90", triton_version(), *fixed)]
    assert found == read(sides[request].walk)


def swapped(part: Part) -> Part:
    """The first two additions of weights each take an operand of the other."""
    weights = {each.operands[0] for each in part if each.op.startswith("ex2.")}
    at = [
        place
        for place, each in enumerate(part)
        if each.op == "add.rn.f32" and set(each.operands[1:]) <= weights
    ]
    made = list(part)
    a, b = part[at[0]], part[at[1]]
    made[at[0]] = replace(a, operands=(a.operands[0], a.operands[1], b.operands[2]))
    made[at[1]] = replace(b, operands=(b.operands[0], b.operands[1], a.operands[2]))
    return tuple(made)


def turned(part: Part) -> Part:
    """Lanes exchange in the other order."""
    other = {"1": "2", "2": "1"}
    return tuple(
        replace(each, operands=(*each.operands[:2], other[each.operands[2]], *each.operands[3:]))
        if each.op.startswith("shfl.sync.bfly")
        else each
        for each in part
    )


def dropped(part: Part) -> Part:
    """No lane exchanges."""
    return tuple(each for each in part if not each.op.startswith("shfl.sync.bfly"))


@pytest.mark.parametrize("change", [swapped, turned, dropped])
def test_code_that_adds_otherwise_is_not_read(
    change: Callable[[Part], Part], sides: dict[Request, AuditSide]
) -> None:
    sound = walk(sides, "sm_90", 0)
    parts = replace(sound.parts, loop=change(sound.parts.loop))
    assert read(replace(sound, parts=parts)) is None


def test_another_layout_is_not_read(sides: dict[Request, AuditSide]) -> None:
    sound = walk(sides, "sm_90", 0)
    for old, new in (("[4, 1]", "[2, 2]"), ("nvidia_mma", "unknown")):
        reduces = tuple(
            replace(each, layout=each.layout.replace(old, new)) for each in sound.structure.reduces
        )
        assert read(replace(sound, structure=replace(sound.structure, reduces=reduces))) is None


def test_the_shipped_table_is_sound() -> None:
    for key, tree in table().items():
        assert tree.columns == key.tile
        assert sorted(tree.own + tree.across) == [
            1 << bit for bit in range(len(tree.own + tree.across))
        ]
    assert isinstance(next(iter(table().values())), RowTree)
