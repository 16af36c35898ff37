"""Relation *tp-invariance*: one decoder at several numbers of tensor-parallel ranks, bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvparity.births.digests import Place, digest_pass
from kvparity.controls.ranks import DEFECTS
from kvparity.core.errors import UnsupportedError
from kvparity.plan.results import CaseLine
from kvparity.record.execute import Record
from kvparity.record.path_run import PathRun
from kvparity.relations.asked import Asked, ControlTrial, Planted, RelationAnswer
from kvparity.relations.base import KeptFile, PathRelation
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.tp.judging import RankVerdict, bits, compared, worst
from kvparity.relations.tp.line import FirstRanks, RanksFound, TpCase, TpDetails
from kvparity.relations.tp.rank import RankedPath, ranked, whole
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity_contracts.checks import TpInvariance


class TpRelation(PathRelation):
    """The reference on one rank, and both paths at every number of ranks, have the same bits."""

    check = TpInvariance
    line = TpCase
    holds = "bits are equal at every number of ranks"
    file = KeptFile(
        tensors=("reference.values", "candidate.values", "reference.digests"),
        when="differs",
        by_token=True,
    )

    def place(self, case: CaseLine) -> str:
        """With the numbers of ranks."""
        found = case.details
        told = sorted({each.ranks for each in found.found}) if isinstance(found, TpDetails) else []
        words = f" at {', '.join(map(str, told))} ranks" if told else ""
        return f"{super().place(case)}{words}"

    def compare(self, asked: Asked) -> RelationAnswer:
        """Compare both paths at every number of ranks with the reference on one."""
        check = asked.check
        assert isinstance(check, TpInvariance)
        other = asked.reference()
        reference, candidate = other.record(), asked.candidate.record()
        alone = bits(reference, candidate, same_path=False)
        own = RankVerdict(RankedPath(1, asked.candidate.side.path, candidate, (), (), {}), alone)
        found = [own]
        for size in check.sizes if alone.outcome != "differs" else ():
            sides = ranked(other.side, [asked.candidate.side.path, other.side.path], check, size)
            found += [_compared(other.side, reference, each, check) for each in sides]
        first = worst(found)
        operation = None
        if first.found.outcome == "differs":
            operation = _operation(other.side, first.side, check)
        result = replace(first.found, details=_details(other.side, check, found, operation))
        return RelationAnswer(result, first.side.record, reference)

    def rows(self, cases: Sequence[CaseLine]) -> list[str]:
        """What ranks really ran to communicate."""
        lines = [
            f"    {each.path} at {each.ranks} ranks: {_words(each)}"
            for case in cases
            if isinstance(case.details, TpDetails)
            for each in case.details.found
            if each.ranks > 1
        ]
        return list(dict.fromkeys(lines))

    def spots(self, case: CaseLine) -> list[str]:
        """Where its bits part first."""
        found = case.details
        if not isinstance(found, TpDetails) or (first := found.first) is None:
            return []
        where = first.operation or "no operation whose rows are whole on every rank"
        return [f"    {case.id}: first diverges at {first.ranks} ranks, {first.path}, in {where}"]

    def control(self, trial: ControlTrial) -> Planted:
        """Plant a defect into ranks, where it shows with the fewest processes."""
        check = trial.setting.contract.check(trial.job.check)
        assert isinstance(check, TpInvariance)
        plans, tokens = trial.part()
        subject, job = trial.setting.subject, trial.job
        side = PathRun(trial.setting, subject, plans, job.reference, tokens)
        size = check.sizes[-1 if DEFECTS[job.control].most else 0]
        reference = side.run()

        def look(defect: str | None) -> Comparison:
            (found,) = ranked(side, [trial.control.path], check, size, defect)
            return _compared(side, reference, found, check).found

        if not job.covered and (clean := look(None)).outcome != "holds":
            return Planted(False, f"it fails without the defect, too: {self.seen(clean)}")
        seen = look(job.control)
        return Planted(seen.outcome == trial.control.expect, self.seen(seen))


def _words(found: RanksFound) -> str:
    """Such as ``48 allgather_ of float32, 30720 bytes from each rank``."""
    ran = [
        f"{each.times} {each.operator} of {each.dtype}, {each.bytes} bytes from each rank"
        for each in found.collectives
    ]
    return ", ".join(ran) or "no collective"


def _compared(
    side: PathRun, reference: Record, found: RankedPath, check: TpInvariance
) -> RankVerdict:
    sums = 2 * _decoder(side).model.config.layers
    return compared(reference, found, reduce=check.reduce, sums=sums)


def _decoder(side: PathRun) -> DecoderSubject:
    subject = side.setting.subject
    if not isinstance(subject, DecoderSubject):
        raise UnsupportedError("a decoder alone is cut over ranks")
    return subject


def _details(
    side: PathRun, check: TpInvariance, found: Sequence[RankVerdict], operation: str | None
) -> TpDetails:
    first, blocks = worst(found), _decoder(side).model.blocks
    return TpDetails(
        reduce=check.reduce,
        row_blocks=None if blocks is None else blocks.own,
        found=tuple(
            RanksFound(
                ranks=each.side.ranks,
                path=str(each.side.path),
                differing_tokens=each.found.differing_tokens,
                differing_rows=each.found.differing_rows,
                unlike_ranks=each.side.unlike,
                collectives=each.side.collectives,
            )
            for each in found
        ),
        first=FirstRanks(ranks=first.side.ranks, path=str(first.side.path), operation=operation)
        if first.found.outcome == "differs"
        else None,
    )


def _operation(side: PathRun, found: RankedPath, check: TpInvariance) -> str | None:
    """The first operation with other bits, in the first row that has any: one more run of each."""
    if found.ranks == 1:
        return None
    _, ours = digest_pass(side)
    (theirs,) = ranked(side, [found.path], check, found.ranks, operations=True)
    return first_unlike(whole(ours.by_operation), theirs.by_operation)


def first_unlike(
    ours: dict[str, dict[Place, int]], theirs: dict[str, dict[Place, int]]
) -> str | None:
    """In the order of computation, of the first row that has other bits in any operation."""
    off = [
        (place, operation)
        for operation, own in ours.items()
        for place, digest in own.items()
        if theirs.get(operation, {}).get(place, digest) != digest
    ]
    return min(off, key=lambda each: each[0])[1] if off else None
