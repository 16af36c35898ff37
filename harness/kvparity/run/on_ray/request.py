"""What is asked of a Ray cluster. Imports neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
    """What one worker takes of one node: all of it in one place.

    A subject that is spread over several GPUs of a node asks for as many ``gpus`` here, and its
    ranks are processes of the one worker. One that is spread over nodes would need a placement
    group (``STRICT_PACK`` keeps it on one); this is where it would be asked for.
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


def need_of(device: str, accelerator: str | None) -> NodeNeed:
    """What a worker of a job takes: where a device was asked for, never less than one."""
    return NodeNeed(gpus=1 if device.startswith("cuda") else 0, accelerator=accelerator)
