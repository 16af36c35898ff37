"""What is asked of a Ray cluster. Imports neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kvparity_contracts.checks import TpInvariance
from kvparity_contracts.contract import Contract
from kvparity_contracts.subjects import AnySubject, Transformers

MISSING = 'Ray is not installed: pip install "kvparity[ray]"'
AUTO = "auto"
"""The cluster that ``RAY_ADDRESS`` names, or the one that this machine is a node of."""
WAIT_S = 60.0
"""How long a run waits for a node that could take a task at all, where nothing else is asked."""


@dataclass(frozen=True)
class RayRequest:
    """``address``: of the cluster. ``accelerator``: the kind of GPU, as Ray names it, such as
    ``H100``; None: any. ``wait_s``: see ``WAIT_S``. ``jobs``: most tasks at a time; None: as many
    as the cluster has places.
    """

    address: str = AUTO
    accelerator: str | None = None
    wait_s: float = WAIT_S
    jobs: int | None = None


@dataclass(frozen=True)
class NodeNeed:
    """What one worker takes of one node: all of it in one place, as ``STRICT_PACK`` would have it.

    The GPUs of a subject that is spread over them, and the ranks of one that is cut, are those of
    the one worker. Nothing is spread over nodes, so there is no placement group.
    """

    cpus: int = 1
    gpus: int = 0
    accelerator: str | None = None

    def resources(self) -> dict[str, float]:
        """As a node of Ray states them."""
        found: dict[str, float] = {"CPU": self.cpus}
        if self.gpus:
            found["GPU"] = self.gpus
        if self.accelerator is not None:
            found[f"accelerator_type:{self.accelerator}"] = 0.001  # as Ray asks for one
        return found

    def fits(self, there: Mapping[str, float]) -> int:
        """How often it fits into what a node has; a kind of GPU is had or not."""
        wanted = self.resources()
        if any(there.get(name, 0.0) < size for name, size in wanted.items()):
            return 0
        return int(min(there[name] / wanted[name] for name in wanted if ":" not in name))

    def __str__(self) -> str:
        words = f"{self.cpus} CPU" + (f" and {self.gpus} GPU" if self.gpus else "")
        return words + (f" of type {self.accelerator}" if self.accelerator else "")


def need_of(device: str, accelerator: str | None, contract: Contract | None = None) -> NodeNeed:
    """What a worker of a job takes: as many GPUs as the contract names or has ranks, at least one
    where a device was asked for; on a CPU a core for each rank. Without a contract, of one rank.
    """
    checks = () if contract is None else contract.checks
    cut = (size for each in checks if isinstance(each, TpInvariance) for size in each.ranks)
    ranks = max(cut, default=1)
    if not device.startswith("cuda"):
        return NodeNeed(cpus=ranks)
    gpus = 1 if contract is None else _mapped(contract.subject)
    return NodeNeed(gpus=max(ranks, gpus), accelerator=accelerator)


def _mapped(subject: AnySubject) -> int:
    """As many GPUs as the highest number of a device map needs: a task sees its own, from
    ``cuda:0`` on.
    """
    named = (subject.device_map or {}).values() if isinstance(subject, Transformers) else ()
    return 1 + max((int(each.partition(":")[2] or 0) for each in named), default=0)
