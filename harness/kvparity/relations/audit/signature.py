"""The reduction signature of one compiled kernel: what its code shows of the order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from kvparity.relations.audit import cfg, flow, ptx, sass, ttgir
from kvparity.relations.audit.chains import Chain, chains, family
from kvparity.relations.audit.compile import Artefact
from kvparity.relations.audit.flow import Skeleton
from kvparity.relations.audit.request import Constant
from kvparity_contracts.json_types import JsonObject

_EXP = ("ex2.",)


@dataclass(frozen=True)
class Contraction:
    """Whether products and sums may become, and became, one fma.

    ``allowed``: the compiler was permitted to. ``made``: how many fma the SASS has more than that
    of the same kernel compiled without permission.
    """

    allowed: bool
    made: int


@dataclass(frozen=True)
class Signature:
    """What was seen in one kernel. Frozen and comparable; ``as_json`` is what is reported.

    ``before``, ``loop``, ``after``, ``finish``: the float dataflow around and in the loop over
    tiles (``cfg.LoopParts``). ``around``: whether a loop over splits is around it.
    """

    name: str
    arch: str
    triton: str
    ptxas: str
    constants: Mapping[str, Constant]
    dtypes: Mapping[str, str]
    num_warps: int
    structure: ttgir.Structure
    chains: tuple[Chain, ...]
    instructions: tuple[str, ...]
    before: Skeleton
    loop: Skeleton
    after: Skeleton
    finish: Skeleton
    around: bool
    loops: bool
    exp: tuple[str, ...]
    contraction: Contraction
    atomics: int
    sass: sass.Counts
    hash: str = field(compare=False)
    parts: cfg.LoopParts = field(compare=False, repr=False)
    held: Mapping[str, str] = field(compare=False, repr=False)
    k_widths: tuple[int, ...] = ()

    @property
    def families(self) -> frozenset[str]:
        """The kinds of instruction that multiply matrices; empty in a kernel that does not."""
        return frozenset(family(op) for op in self.instructions)

    def elementwise(self, part: str, given: Skeleton | None = None) -> Skeleton:
        """The dataflow of a part that sums nothing over threads, with ``given`` as if loaded."""
        names = frozenset[str]() if given is None else given.names
        return flow.skeleton(getattr(self.parts, part), names, exchanges=False, constants=self.held)

    def kindless(self, part: str) -> Skeleton:
        """The dataflow of a part; a product is one value, whichever instruction makes it."""
        return flow.skeleton(getattr(self.parts, part), constants=self.held, kinds=False)

    def as_json(self) -> JsonObject:
        """JSON values without the code's hash, which also depends on line numbers."""
        skeletons = {
            name: {"fingerprint": each.fingerprint, "values": each.kinds()}
            for name in ("before", "loop", "after", "finish")
            if (each := getattr(self, name)).nodes
        }
        return {
            "name": self.name,
            "arch": self.arch,
            "triton": self.triton,
            "ptxas": self.ptxas,
            "constants": dict(self.constants),
            "dtypes": dict(self.dtypes),
            "num_warps": self.num_warps,
            "structure": asdict(self.structure),
            "instructions": list(self.instructions),
            "chains": [asdict(each) for each in self.chains],
            "dataflow": skeletons,
            "exp": list(self.exp),
            "contraction": asdict(self.contraction),
            "atomics": self.atomics,
            "sass": asdict(self.sass),
        }


def sign(kernel: Artefact) -> Signature:
    """Read the three texts of a kernel. Raises ``ValueError`` if one is not readable."""
    program = ptx.parse(kernel.ptx)
    control = cfg.control_flow(program)
    parts = cfg.cut(control)
    structure = ttgir.parse(kernel.ttgir)
    built = sass.parse(kernel.sass)
    strict = built if kernel.strict_sass is None else sass.parse(kernel.strict_sass)
    held = ptx.constants(program.instructions)
    everywhere = chains(program.instructions, program.instructions)
    return Signature(
        name=kernel.name,
        arch=kernel.arch,
        triton=kernel.triton,
        ptxas=kernel.ptxas,
        constants=kernel.constants,
        dtypes=kernel.dtypes,
        num_warps=kernel.num_warps,
        structure=structure,
        chains=chains(program.instructions, parts.loop or parts.before),
        instructions=tuple(sorted({each.op for each in everywhere})),
        before=flow.skeleton(parts.before, constants=held),
        loop=flow.skeleton(parts.loop, constants=held),
        after=flow.skeleton(parts.after, constants=held),
        finish=flow.skeleton(parts.finish, constants=held),
        around=parts.around,
        loops=bool(parts.loop),
        exp=tuple(sorted({i.op for i in program.instructions if i.op.startswith(_EXP)})),
        contraction=Contraction(
            allowed=kernel.fusion,
            made=sass.contracted(built, strict),
        ),
        atomics=structure.atomics + ptx.atomics(program.instructions),
        sass=built,
        hash=kernel.hash,
        parts=parts,
        held=held,
        k_widths=ttgir.k_widths(kernel.ttgir),
    )
