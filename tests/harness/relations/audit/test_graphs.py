"""Blocks, order, loops and parts of small random programs, against the definitions themselves.

Each block of a program has one instruction of its own, so a part is told as block numbers.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from kvparity.relations.audit import cfg
from kvparity.relations.audit.ptx import Instruction, parse

ENDS = ("ret", "exit", "trap")


@dataclass(frozen=True)
class Case:
    """A program as text, and which block may follow which."""

    text: str
    edges: dict[int, set[int]]

    def reach(self, start: Iterable[int], allowed: set[int]) -> set[int]:
        """The blocks of ``allowed`` behind ``start``, by ways in ``allowed``."""
        found: set[int] = set()
        while True:
            new = {t for s in (*start, *found) for t in self.edges[s] if t in allowed} - found
            if not new:
                return found
            found |= new

    @property
    def blocks(self) -> set[int]:
        return {0} | self.reach({0}, set(self.edges))

    def over(self, block: int, other: int) -> bool:
        """Whether every way from the start to ``other`` goes over ``block``."""
        if block in (0, other):
            return True
        return other not in {0} | self.reach({0}, self.blocks - {block})

    def loops(self) -> dict[int, set[int]]:
        """Header and body, by the definition of a natural loop."""
        found: dict[int, set[int]] = {}
        for last in self.blocks:
            for header in self.edges[last]:
                if self.over(header, last):
                    inside = self.blocks - {header}
                    body = {b for b in inside if b == last or last in self.reach({b}, inside)}
                    found.setdefault(header, {header}).update(body)
        return found


def program(seed: int, multiplies: bool = True) -> Case:
    """Two to seven blocks, with every kind of end; about one in three multiplies matrices."""
    chance = random.Random(seed)
    size = chance.randint(2, 7)
    lines, edges = [], {}
    for number in range(size):
        matrix = multiplies and chance.random() < 0.35
        lines += [f"$L__BB0_{number}:", f"{'mma.sync.x' if matrix else 'mov.b32'} %r{number}, 0;"]
        following = {number + 1} - {size}
        to = chance.randrange(size)
        ends = ("fall", "bra", "@bra", "@bra", "leave", "@leave")
        kind = chance.choice(ends) if seed % 3 else "@bra"  # a tangle, with ways into loops
        guard = "@!%p1 " if kind.startswith("@") else ""
        if kind.endswith("bra"):
            lines.append(f"{guard}bra{chance.choice(('', '.uni'))} $L__BB0_{to};")
            edges[number] = {to} | (following if guard else set())
        elif kind.endswith("leave"):
            lines.append(f"{guard}{chance.choice(ENDS)};")
            edges[number] = following if guard else set()
        else:
            edges[number] = following
    return Case("{\n" + "\n".join(lines) + "\n}", edges)


def numbers(part: Iterable[Instruction]) -> list[int]:
    return [int(each.operands[0].removeprefix("%r")) for each in part if len(each.operands) == 2]


def read(case: Case) -> tuple[cfg.Flow, dict[int, int]]:
    """The flow, and the number of the block that starts at each place."""
    flow = cfg.control_flow(parse(case.text))
    return flow, {place: numbers(code)[0] for place, code in flow.blocks.items()}


SEEDS = range(150)
CASES = [program(seed) for seed in SEEDS]


def test_blocks_and_what_follows_them() -> None:
    for case in CASES:
        flow, name = read(case)
        assert {name[b]: {name[s] for s in after} for b, after in flow.successors.items()} == (
            case.edges
        )


def test_the_order_holds_each_block_that_can_run_once_and_goes_back_in_loops_alone() -> None:
    for case in CASES:
        flow, name = read(case)
        order = [name[b] for b in flow.order]
        assert order[0] == 0
        assert sorted(order) == sorted(case.blocks)
        for at, block in enumerate(order):
            for back in case.edges[block] & set(order[: at + 1]):
                assert block == back or block in case.reach({back}, case.blocks)


def test_loops_are_natural_loops() -> None:
    for case in CASES:
        flow, name = read(case)
        found = {name[x.header]: {name[b] for b in x.blocks} for x in flow.loops}
        assert found == case.loops()
        assert len(found) == len(flow.loops)


def chosen(case: Case, multiplies: set[int]) -> set[int] | None:
    """The blocks of the loop over tiles, by its definition; None where it is a matter of order."""
    loops = sorted(case.loops().values(), key=len)
    those = [body for body in loops if body & multiplies]
    if those:
        return None if len(those) > 1 and len(those[0]) == len(those[1]) else those[0]
    if multiplies & case.blocks or len(loops) != 1:
        return set() if len(loops) != 1 else loops[0]
    return loops[0]


@pytest.mark.parametrize("multiplies", [True, False])
def test_the_parts_are_what_stands_before_in_and_behind_the_loop(multiplies: bool) -> None:
    seen = 0
    for seed in SEEDS:
        case = program(seed, multiplies)
        flow, _ = read(case)
        matrix = {numbers([x])[0] for code in flow.blocks.values() for x in code if x.matrix}
        inner = chosen(case, matrix)
        if inner is None:
            continue
        parts = cfg.cut(flow)
        if not inner:
            assert parts == cfg.LoopParts(before=flow.part(frozenset(flow.order)))
            continue
        around = [(len(b), h) for h, b in case.loops().items() if inner < b]
        if len(around) > 1 and min(around)[0] == sorted(around)[1][0]:
            continue
        header = min(around)[1] if around else None
        scope = case.loops()[header] if header is not None else case.blocks
        after = case.reach(inner, scope - inner - {header})
        finish = case.reach(scope, case.blocks - scope) if around else set()
        found = [parts.before, parts.loop, parts.after, parts.finish]
        assert [sorted(numbers(part)) for part in found] == [
            sorted(each) for each in (scope - inner - after, inner, after, finish)
        ]
        assert parts.around == bool(around)
        seen += bool(around) + 1
    assert seen > 50


def flow_of(text: str) -> cfg.Flow:
    return cfg.control_flow(parse("{\n" + text + "\n}"))


@pytest.mark.parametrize(("count", "seen"), [(63, False), (64, True)])
def test_many_fma_are_a_product_of_matrices_and_fewer_are_not(count: int, seen: bool) -> None:
    """Of two loops the one with many is the loop over tiles, be it the larger or the smaller."""
    body = "fma.rn.f32 %r1, %r2, %r3, %r1;\n"
    other = "$L__BB0_1:\nadd.f32 %r9, %r9, %r8;\n@%p1 bra $L__BB0_1;\n"
    text = other + f"$L__BB0_2:\n{body * count}@%p1 bra $L__BB0_2;\nret;"
    parts = cfg.cut(flow_of(text))
    assert (len(parts.loop), len(parts.before)) == ((count + 1, 2) if seen else (0, count + 4))


MMA = "mma.sync.x {%r1}, {%r2}, {%r3}, {%r1};\n"


def test_the_loop_around_is_the_nearest_one() -> None:
    """Of three loops in each other with an addition in front, behind and after each."""
    text, behind = "", ""
    for depth in range(3):
        text += f"add.s32 %r{depth}, %r9, 1;\n$L__BB0_{depth}:\n"
        behind = f"@%p1 bra $L__BB0_{depth};\nsub.s32 %r{depth}, %r9, 1;\n" + behind
    parts = cfg.cut(flow_of(text + MMA + behind))
    found = (parts.before, parts.after, parts.finish)
    assert [[each.op[:3] + each.operands[0] for each in part] for part in found] == [
        ["add%r2"],
        ["sub%r2", "bra$L__BB0_1"],
        ["add%r1", "sub%r1", "bra$L__BB0_0", "sub%r0"],  # the outermost loop may turn again
    ]


def test_many_fma_are_no_loop_over_tiles_beside_straight_matrix_instructions() -> None:
    loops = "".join(
        f"$L__BB0_{n}:\n" + "fma.rn.f32 %r1, %r2, %r3, %r1;\n" * 70 + f"@%p1 bra $L__BB0_{n};\n"
        for n in (1, 2)
    )
    assert cfg.cut(flow_of(loops)).loop
    assert not cfg.cut(flow_of(MMA + loops)).loop


def test_a_label_behind_the_last_instruction_is_no_block() -> None:
    flow = flow_of("@%p1 bra $L__BB0_1;\n@%p2 bra $L__BB0_1;\n$L__BB0_1:")
    assert flow.successors == {0: (1,), 1: ()}
    assert flow.order == (0, 1)


def test_a_branch_to_a_label_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"branches to \$L__BB0_7, which is missing"):
        flow_of("@%p1 bra $L__BB0_7;\nret;")
