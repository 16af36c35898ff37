"""What a contract claims, as values that can be compared: what a change of it adds and loses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from kvparity_contracts.base import show
from kvparity_contracts.checks import KernelCheck, ParityCheck, PathCheck
from kvparity_contracts.contract import Contract
from kvparity_contracts.idling import runs
from kvparity_contracts.json_types import JsonValue
from kvparity_contracts.planning import PlantedControl, fates
from kvparity_contracts.workloads import Workload


@dataclass(frozen=True)
class Claim:
    """That a relation holds, over ``where``: paths, or a number of keys, or an architecture."""

    relation: str
    where: str
    workload: str
    execution: str
    kv_cache: str
    temperature: float | None

    @property
    def subject(self) -> str:
        """What is claimed, without the workload and formats."""
        return f"{self.relation}: {self.where}" if self.where else self.relation

    @property
    def over(self) -> str:
        """The workload and the formats."""
        formats = [self.execution]
        if self.kv_cache != self.execution:
            formats.append(f"kv {self.kv_cache}")
        if self.temperature not in (None, 1.0):
            formats.append(f"temperature {self.temperature:g}")
        return " ".join([*([self.workload] if self.workload else []), *formats])


@dataclass(frozen=True)
class ContractDiff:
    """What a new contract claims less, weaker, more, stronger and otherwise than an old one."""

    lost: tuple[str, ...]
    weakened: tuple[str, ...]
    added: tuple[str, ...]
    strengthened: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def weaker(self) -> bool:
        """Whether the new one holding says less than the old one holding, or something else."""
        return bool(self.lost or self.weakened or self.changed)


def claims(contract: Contract) -> Iterator[Claim]:
    """All claims of a contract, each once."""
    temperatures = contract.numerics.temperatures
    for execution, kv_cache in contract.numerics.formats():
        for check in contract.checks:
            if isinstance(check, ParityCheck):
                where = "equal bits" if check.bits else ""
                for name in [each.name for each in contract.workloads] or [""]:
                    yield Claim(check.relation, where, name, execution, kv_cache, None)
            elif isinstance(check, KernelCheck):
                for point in check.points(execution):
                    where = point.architecture or (f"{point.keys} keys" if point.keys else "")
                    yield Claim(check.relation, where, "", execution, kv_cache, None)
            elif isinstance(check, PathCheck):
                one = check.INSIDE or contract.subject.kind == "attention"
                for where, workload in _places(contract, check):
                    for temperature in (None,) if one else temperatures:
                        yield Claim(
                            check.relation, where, workload, execution, kv_cache, temperature
                        )


def _places(contract: Contract, check: PathCheck) -> Iterator[tuple[str, str]]:
    against = "" if check.against is None else f" against {check.against}"
    for workload in contract.workloads_of(check):
        for path in contract.paths_of(check, workload):
            if runs(path, check, workload):
                yield f"{path}{against}", workload.name


def difference(old: Contract, new: Contract) -> ContractDiff:
    """What a change from one contract to another means."""
    before, after = set(claims(old)), set(claims(new))
    weakened, strengthened = _limits(old, new)
    shorter, longer = _workloads(old, new)
    gone, come = (
        [f"control {name}" for name in sorted(_controls(one) - _controls(other))]
        for one, other in ((old, new), (new, old))
    )
    return ContractDiff(
        lost=(*_grouped(before - after), *gone),
        weakened=(*weakened, *shorter),
        added=(*_grouped(after - before), *come),
        strengthened=(*strengthened, *longer),
        changed=tuple(_changed(old, new)),
    )


def _grouped(found: Iterable[Claim]) -> Iterator[str]:
    """One line for each relation and path."""
    lines: dict[str, list[str]] = {}
    for claim in sorted(found, key=lambda each: (each.subject, each.over)):
        lines.setdefault(claim.subject, []).append(claim.over)
    yield from (f"{what} over {', '.join(over)}" for what, over in lines.items())


def _controls(contract: Contract) -> set[str]:
    """Those that are planted; a control that is only named is none."""
    return {each.control.name for each in fates(contract) if isinstance(each, PlantedControl)}


def _limits(old: Contract, new: Contract) -> tuple[list[str], list[str]]:
    """Limits of one relation and format: larger or gone, and smaller or new."""
    weaker: list[str] = []
    stronger: list[str] = []
    before, after = _limits_of(old), _limits_of(new)
    for key in dict.fromkeys((*before, *after)):
        was, now = before.get(key), after.get(key)
        if was == now:
            continue
        words = f"{key}: {_limit(was)} to {_limit(now)}"
        (weaker if now is None or (was is not None and now > was) else stronger).append(words)
    return weaker, stronger


def _limit(value: float | None) -> str:
    return "no limit" if value is None else f"{value:g}"


def _limits_of(contract: Contract) -> dict[str, float]:
    """By relation, format and measure. Of two checks, the smaller: both must hold."""
    found: dict[str, float] = {}
    for check in contract.checks:
        for execution in contract.numerics.execution:
            for name, value in check.limits_in(execution).items():
                key = f"{check.relation} in {execution}, {name}"
                found[key] = min(value, found.get(key, value))
        if isinstance(check, ParityCheck):
            key = f"{check.relation}, unmatched"
            found[key] = min(check.unmatched, found.get(key, check.unmatched))
    return found


def _workloads(old: Contract, new: Contract) -> tuple[list[str], list[str]]:
    """Workloads of one name: those that lack a sequence they had, and those that only gained."""
    weaker: list[str] = []
    stronger: list[str] = []
    by_name: Mapping[str, Workload] = {each.name: each for each in new.workloads}
    for was in old.workloads:
        now = by_name.get(was.name)
        if now is None or was == now:
            continue  # its claims are lost, or it is the same
        words = f"workload {was.name}: {_told(was)} to {_told(now)}"
        less = _prompts(was) - _prompts(now) or set(was.pad) - set(now.pad)
        (weaker if less or now.generate < was.generate else stronger).append(words)
    return weaker, stronger


def _prompts(workload: Workload) -> Counter[object]:
    every = workload.prompt_tokens or workload.prompts or workload.texts or workload.chats or ()
    return Counter(every)


def _told(workload: Workload) -> str:
    lengths = workload.lengths()
    shown = ", ".join(map(str, lengths[:8])) + (", …" if len(lengths) > 8 else "")
    return f"{shown} + {workload.generate} tokens"


def _changed(old: Contract, new: Contract) -> Iterator[str]:
    """What is under verification, and the seed."""
    before, after = (dict(_flat("subject", each.subject.model_dump())) for each in (old, new))
    before["seed"], after["seed"] = old.seed, new.seed
    for key in dict.fromkeys((*before, *after)):
        was, now = (each.get(key) for each in (before, after))
        if was != now:
            yield f"{key}: {show(was)} to {show(now)}"


def _flat(key: str, value: JsonValue) -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}", inner)
    else:
        yield key, value
