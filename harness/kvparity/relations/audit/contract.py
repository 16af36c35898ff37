"""From a contract to the kernel pairs that it would launch, and to what the audit says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kvparity.core.errors import UnsupportedError
from kvparity.relations.audit.compare import KernelComparison
from kvparity.relations.audit.request import ARCHITECTURES, TARGETS, Request, Shape, tiles_in_force
from kvparity.relations.audit.side import audit
from kvparity.subjects.decoder.config import DecoderShape, from_contract
from kvparity.subjects.decoder.presets import preset
from kvparity.tiles.force import words
from kvparity_contracts import Contract, PathName
from kvparity_contracts.json_types import JsonObject
from kvparity_contracts.subjects import OWN_KERNELS, Attention, Decoder
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.store import StoreFormat


@dataclass(frozen=True)
class Result:
    """What the audit says of one pair of kernels of a contract, on one architecture."""

    arch: str
    shape: Shape
    order: ReductionOrder
    candidate_order: ReductionOrder
    comparison: KernelComparison
    candidate_arch: str

    @property
    def changes(self) -> str:
        """What decode is compiled with that prefill is not, such as ``block_m 16 for 64``."""
        old, new = asdict(self.order), asdict(self.candidate_order)
        changed = [f"{name} {new[name]} for {old[name]}" for name in old if new[name] != old[name]]
        if self.candidate_arch != self.arch:
            changed.append(f"{self.candidate_arch} for {self.arch}")
        return ", ".join(changed)

    def as_json(self) -> JsonObject:
        """JSON values."""
        return {
            "shape": asdict(self.shape),
            "order": asdict(self.order),
            "candidate_order": asdict(self.candidate_order),
            "tiles": self.tiles,
            "candidate_tiles": self.candidate_tiles,
            **self.comparison.as_json(),
        }

    @property
    def tiles(self) -> str:
        """Those in force for prefill, in words."""
        return words(tiles_in_force(self.arch, self.shape.execution, self.order))

    @property
    def candidate_tiles(self) -> str:
        """Those in force for decode, in words."""
        return words(
            tiles_in_force(self.candidate_arch, self.shape.execution, self.candidate_order)
        )


def audit_contract(
    contract: Contract,
    base: Path,
    archs: Sequence[str],
    *,
    formats: Sequence[tuple[str, str]] | None = None,
    against: Mapping[str, int] | None = None,
    elsewhere: Mapping[str, str] | None = None,
    folder: Path | None = None,
    jobs: int | None = None,
) -> list[Result]:
    """Compare decode's kernels with prefill's for every format, page size and architecture.

    ``base``: the folder that a checkpoint is relative to. ``formats``: pairs of execution and cache
    dtype, by default all of the contract. ``against``: changes of the order on decode's side alone
    (``{"block_m": 16}``), to see what they would do. ``elsewhere``: what decode is compiled for
    where prefill is compiled for an architecture.

    Raises ``UnsupportedError`` if the subject has no kernels of ours, ``AuditError`` if they do not
    compile, ``ValueError`` for an architecture or an order that does not exist.
    """
    order, shapes = subject_shapes(contract, base, formats)
    changed = replace(order, **(against or {}))
    pairs = [
        (
            Request("prefill", arch, reference, order),
            Request("decode", (elsewhere or {}).get(arch, arch), shape, changed),
        )
        for arch in archs
        for reference, shape in shapes
    ]
    pairs += [
        (Request("prefill", arch, reference, order), Request("prefill", arch, shape, order))
        for arch in archs
        for reference, shape in shapes
        if shape.page
    ]
    found = audit(pairs, folder=folder, jobs=jobs)
    return [
        Result(left.arch, right.shape, left.order, right.order, comparison, right.arch)
        for (left, right), comparison in zip(pairs, found, strict=True)
    ]


def subject_shapes(
    contract: Contract, base: Path, formats: Sequence[tuple[str, str]] | None = None
) -> tuple[ReductionOrder, list[tuple[Shape, Shape]]]:
    """The order, and shapes of reference and candidate.

    There is a pair for each format, each kind of layer (full, sliding) and each page size.
    """
    subject = contract.subject
    if isinstance(subject, Attention):
        if (subject.prefill, subject.decode) != OWN_KERNELS:
            raise UnsupportedError(
                f"the subject is {subject.prefill} and {subject.decode}; the audit compiles only "
                f"the project's own kernels ({' and '.join(OWN_KERNELS)})"
            )
        heads = (subject.heads.query, subject.heads.kv, subject.heads.dim)
        plain = Shape(
            *heads,
            window=subject.window is not None,
            softcap=subject.softcap is not None,
            sinks=subject.sinks is not None,
        )
        kinds = [plain]
    elif isinstance(subject, Decoder):
        if subject.attention != "fixed-order":
            raise UnsupportedError(
                f"the decoder has attention: {subject.attention}; the audit compiles only this "
                "project's kernels"
            )
        kinds = _kinds(_config(subject, base), ring=subject.cache.ring)
    else:
        raise UnsupportedError(
            f"a subject of kind {subject.kind} launches kernels that the audit does not know; "
            "expected attention or decoder"
        )
    order = (
        ReductionOrder() if subject.order is None else ReductionOrder(**subject.order.model_dump())
    )
    pairs = []
    for execution, cache in formats or contract.numerics.formats():
        for kind in kinds:
            one = replace(kind, execution=execution, kv_cache=str(StoreFormat.parse(cache)))
            pairs += [(one, replace(one, page=page)) for page in (0, *sorted(_pages(contract)))]
    return order, pairs


def _kinds(config: DecoderShape, *, ring: bool) -> list[Shape]:
    """What each kind of layer of a decoder calls; layers that share a cache call the same."""
    plain = Shape(
        config.heads,
        config.kv_heads,
        config.head_dim,
        softcap=config.attention_softcap > 0,
        sinks=config.attention_sinks,
    )
    sliding = replace(plain, window=True, ring=ring)
    kinds = sorted(set(config.types), key=config.types.index)
    return [sliding if kind == "sliding" else plain for kind in kinds]


def _config(subject: Decoder, base: Path) -> DecoderShape:
    if subject.preset is not None:
        return preset(subject.preset)
    if subject.config is not None:
        return from_contract(subject.config)
    from kvparity.subjects.decoder.checkpoint import read_config

    return read_config(base / (subject.checkpoint or ""))


def _pages(contract: Contract) -> set[int]:
    subject = contract.subject
    own = subject.page if isinstance(subject, Attention) else None
    return {path.page for path in _paths(contract) if path.page} | ({own} if own else set())


def _paths(contract: Contract) -> Iterator[PathName]:
    for check in contract.path_checks:
        yield from check.paths
        if (reference := check.against) is not None:
            yield reference


def present() -> tuple[str, ...]:
    """The architecture of this machine's device if it has one that is known, else all."""
    import torch

    if not torch.cuda.is_available():
        return tuple(ARCHITECTURES)
    major, minor = torch.cuda.get_device_capability()
    name = f"sm_{major}{minor}"
    if name not in TARGETS:
        raise UnsupportedError(
            f"this device is {name}, which the audit does not know; choose with --arch one of "
            f"{', '.join(TARGETS)}"
        )
    return (name,)
