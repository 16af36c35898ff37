"""A check that one decoder gives the same bits at several numbers of tensor-parallel ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from kvparity_contracts.base import Distinct, Fault, Positive
from kvparity_contracts.check_base import Compared, Paths
from kvparity_contracts.numerics import Numerics
from kvparity_contracts.paths import DECODE, PathName
from kvparity_contracts.subjects import AnySubject, Decoder, known

TRACED = ("exported", "compiled")


class TpInvariance(Compared):
    """Paths at several numbers of ranks: the same bits as the reference on one."""

    TAG: ClassVar[str] = "tp-invariance"
    TAKES_NO_TOLERANCE = "a tp-invariance check compares bits and takes no tolerance"
    INSIDE = True

    relation: Literal["tp-invariance"]
    """tp-invariance: a decoder is cut over ranks, and bits are compared with those of one rank."""
    ranks: Distinct[Positive]
    """Numbers of ranks, 1 among them: that is the subject in one process."""
    reduce: Literal["fixed", "all_reduce"] = "fixed"
    """What adds partial sums of ranks: fixed is the tree of subject.row_blocks, all_reduce that of
    torch.distributed, in an order of its own."""
    limit_s: Annotated[int, Field(ge=1, le=604_800)] = 600
    """Seconds that the ranks of one number may take for both paths; a week at most."""
    paths: Annotated[Paths, Field(json_schema_extra={"default": ["decode"]})] = (DECODE,)
    """The paths that must have the reference's bits at every number of ranks."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of ranks above one, ascending."""
        return tuple(sorted(each for each in self.ranks if each > 1))

    def own_faults(self) -> Iterator[Fault]:
        """Nothing to compare, or nothing to compare with."""
        yield from super().own_faults()
        found = f"found {list(self.ranks)}"
        if 1 not in self.ranks:
            yield Fault(("ranks",), found, "1 among them, which the others are compared with")
        elif not self.sizes:
            yield Fault(("ranks",), found, "another number beside 1", "[1, 2]")

    def blind(self, subject: AnySubject, path: PathName) -> str | None:
        """A traced program has no ranks."""
        if path.kind in TRACED:
            return "a traced program computes on one rank"
        return super().blind(subject, path)

    def faults(self, subject: AnySubject, numerics: Numerics) -> Iterator[Fault]:
        """A subject that is not cut, and parts of a decoder that ranks cannot share evenly."""
        if not isinstance(subject, Decoder):
            message = f"found 'tp-invariance' beside a subject of kind {subject.kind}"
            yield Fault(("relation",), message, "a decoder, the subject that is cut over ranks")
            return
        yield from self._uneven(subject)
        if self.reduce != "fixed":
            return
        if subject.row_blocks is None:
            message = "found 'fixed' beside a decoder whose products are one chain"
            yield Fault(("reduce",), message, "subject.row_blocks, or reduce: all_reduce")
            return
        for j, size in enumerate(self.ranks):
            if subject.row_blocks % size:
                expected = f"a number that divides subject.row_blocks ({subject.row_blocks})"
                yield Fault(("ranks", j), f"found {size} ranks", expected)

    def _uneven(self, subject: Decoder) -> Iterator[Fault]:
        cut = known(subject).cut
        for j, size in enumerate(self.ranks if cut is not None else ()):
            for name, count in vars(cut).items():
                if count % size:
                    expected = f"a number that divides {name} ({count})"
                    yield Fault(("ranks", j), f"found {size} ranks", expected)
