"""What one rank computes, in a process of its own, and what comes back of it as plain JSON."""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

import torch
import torch.distributed as dist
from pydantic import TypeAdapter

from kvparity.births.digests import Digests, Place, computing
from kvparity.controls.ranks import DEFECTS
from kvparity.core import doing
from kvparity.core.environment import settle
from kvparity.core.errors import UnsupportedError
from kvparity.core.isolation import ranks as processes
from kvparity.core.values import Counts, Json, Value
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record.execute import Record, Tokens
from kvparity.record.path_run import PathRun, Setting
from kvparity.subjects.collectives import WatchedCollectives
from kvparity.subjects.decoder.rank_sums import SUMS
from kvparity.subjects.decoder.sharding import DecoderShard, shards
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity.subjects.events import Communicated
from kvparity_contracts.contract import Contract
from kvparity_contracts.paths import PathName
from kvparity_contracts.ranks_check import TpInvariance
from kvparity_kernels import device_model, runtime
from kvparity_kernels.launch import LaunchLog
from kvparity_kernels.stream import listening

WHOLE = (
    "embed",
    "input norm",
    "o_proj",
    "post-attention norm",
    "down_proj",
    "final norm",
    "logits",
)
"""Operations whose rows are whole on every rank; those of the others are a rank's own part."""


@dataclass(frozen=True)
class RankWork:
    """What all ranks of a group are asked: paths of one workload. ``defect``: a control's name."""

    contract: Contract
    plans: WorkloadPlans
    paths: tuple[PathName, ...]
    tokens: Tokens
    reduce: str
    limit_s: float
    defect: str | None = None
    operations: bool = False
    """Whether digests of what operations gave are wanted, too."""


class Collective(Value):
    """Collectives of one kind that ran on a rank while it computed a path."""

    operator: str
    """of torch's dispatcher, such as `allgather_`"""
    ranks: int
    """of its group"""
    dtype: str
    """of what the rank put in"""
    times: int
    """how often it ran"""
    bytes: int
    """that the rank put in, in all"""


class RankPath(Value):
    """What a path gave on one rank; numbers are bit patterns."""

    index: list[tuple[int, int]]
    targets: list[int]
    values: list[list[int]]
    digests: list[int]
    finite: list[bool]
    observed: Counts
    collectives: list[Collective]
    operations: dict[str, list[tuple[str, int, int]]]


_ANSWER = TypeAdapter(dict[str, RankPath])
"""What a rank gives, by path."""


@dataclass(frozen=True)
class RankedPath:
    """What a path gave at a number of ranks. ``record``: of rank 0. ``unlike``: the ranks whose
    bits are others than those of rank 0. ``collectives``: of rank 0,
    and of others what it did not run alike. ``by_operation``: see above.
    """

    ranks: int
    path: PathName
    record: Record
    unlike: tuple[int, ...]
    collectives: tuple[Collective, ...]
    by_operation: dict[str, dict[Place, int]]


def ranked(
    side: PathRun,
    paths: Sequence[PathName],
    check: TpInvariance,
    size: int,
    defect: str | None = None,
    operations: bool = False,
) -> list[RankedPath]:
    """Compute ``paths`` at ``size`` ranks, over the tokens of ``side``.

    Raises:
        UnsupportedError: the subject cannot be cut, or there are fewer devices than ranks.
        SubjectError: a rank ended, raised, or all took longer than the check allows.
    """
    subject = side.setting.subject
    if not isinstance(subject, DecoderSubject):
        raise UnsupportedError("a decoder alone is cut over ranks")
    if subject.device.type == "cuda" and torch.cuda.device_count() < size:
        raise UnsupportedError(
            f"{size} ranks need as many devices; there are {torch.cuda.device_count()}"
        )
    own = shards(subject, size)
    if defect is not None:
        own = list(DEFECTS[defect].shards(own))
    work = RankWork(
        side.setting.contract, side.plans, tuple(dict.fromkeys(paths)), side.tokens, check.reduce,
        check.limit_s, defect, operations,
    )  # fmt: skip
    doing.task(f"{doing.now().task.partition(', at ')[0]}, at {size} ranks")
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        kind = subject.device.type
        calls = [(work, kind, shard.to("cpu"), n, size, store) for n, shard in enumerate(own)]
        answers = processes.together(compute, calls, check.limit_s)
    found = [_ANSWER.validate_python(each, strict=False) for each in answers]
    return [_ranked(side.plans, path, [each[str(path)] for each in found]) for path in work.paths]


def _ranked(plans: WorkloadPlans, path: PathName, told: Sequence[RankPath]) -> RankedPath:
    first = told[0]
    bits = [(each.index, each.targets, each.values, each.digests) for each in told]
    record = Record(
        plan=plans.of(path),
        index=tuple(first.index),
        targets=torch.tensor(first.targets, dtype=torch.int64),
        values=torch.tensor(first.values, dtype=torch.int32).view(torch.float32),
        digests=torch.tensor(first.digests, dtype=torch.int64),
        finite=torch.tensor(first.finite, dtype=torch.bool),
        observed=Counter(first.observed),
        launches=LaunchLog(Counter(), {}),
    )
    operations = {
        name: {(sequence, position): digest for sequence, position, digest in rows}
        for name, rows in first.operations.items()
    }
    unlike = tuple(rank for rank, each in enumerate(bits) if each != bits[0])
    ran = tuple(dict.fromkeys(one for each in told for one in each.collectives))
    return RankedPath(len(told), path, record, unlike, ran, operations)


def compute(
    work: RankWork, kind: str, shard: DecoderShard, rank: int, size: int, store: str
) -> Json:
    """What one rank gives of each path, as :class:`RankPath`."""
    settle()
    device = f"cuda:{rank}" if kind == "cuda" else "cpu"
    runtime.select(device)
    device_model.use(work.contract.numerics.device)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # this machine alone
    dist.init_process_group(
        "nccl" if kind == "cuda" else "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=work.limit_s),
    )
    try:
        total = None if work.defect is None else DEFECTS[work.defect].total
        subject = shard.to(device).open(total or SUMS[work.reduce])
        found: Json = {}
        for path in work.paths:
            doing.task(f"rank {rank} of {size}: {path}")
            side = PathRun(Setting(work.contract, subject), subject, work.plans, path, work.tokens)
            found[str(path)] = _path(side, work.operations).document()
        return found
    finally:
        dist.destroy_process_group()


def _path(side: PathRun, operations: bool) -> RankPath:
    ran: Counter[tuple[str, int, str]] = Counter()
    put: Counter[tuple[str, int, str]] = Counter()

    def communicated(event: Communicated) -> None:
        key = (event.operator, event.ranks, event.dtype)
        ran[key] += 1
        put[key] += event.bytes

    digests = Digests()
    with (
        listening(Communicated, communicated),
        WatchedCollectives(),  # type: ignore[no-untyped-call] # of torch
        computing(side, digests.hear) if operations else nullcontext(),
    ):
        record = side.run()
    digests.settle()
    collectives = [
        Collective(operator=each[0], ranks=each[1], dtype=each[2], times=n, bytes=put[each])
        for each, n in ran.items()
    ]
    return rank_path(record, collectives, whole(digests.by_operation))


def rank_path(
    record: Record,
    collectives: Sequence[Collective] = (),
    by_operation: Mapping[str, Mapping[Place, int]] = MappingProxyType({}),
) -> RankPath:
    """A record and what was seen beside it, as a rank sends it."""
    return RankPath(
        index=list(record.index),
        targets=record.targets.tolist(),
        values=record.values.cpu().view(torch.int32).tolist(),
        digests=record.digests.tolist(),
        finite=record.finite.tolist(),
        observed=dict(record.observed),
        collectives=list(collectives),
        operations={
            name: [(*place, digest) for place, digest in rows.items()]
            for name, rows in by_operation.items()
        },
    )


def whole(by_operation: dict[str, dict[Place, int]]) -> dict[str, dict[Place, int]]:
    """Those of operations whose rows are whole on every rank, in the order of computation."""
    return {name: rows for name, rows in by_operation.items() if name.endswith(WHOLE)}
