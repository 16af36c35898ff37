"""Where the tasks of a verification are computed: the seam between a run and machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from kvparity.core.environment import Environment, environment, overridden
from kvparity.core.errors import UnsupportedError
from kvparity.core.isolation.inside import inside
from kvparity.core.isolation.pool import Apart, Here, Pool, Tell
from kvparity.run import worker
from kvparity.run.jobs import Jobs, jobs_of
from kvparity.run.worker import Job
from kvparity.tiles import contract as tiles


@dataclass(frozen=True)
class Surroundings:
    """What tasks run with: versions, device and flags, and the tiles in force, by format."""

    setting: Environment
    tiles: dict[str, str]


class Pools(Protocol):
    """Machines that compute the tasks of a run."""

    def seen(self, job: Job) -> Surroundings:
        """What is there.

        Raises:
            UnsupportedError: the job cannot run there as it says.
        """
        ...

    def tiles(self, job: Job) -> dict[str, object]:
        """The tiles that the contract relies on, checked there. Raises ``SubjectError``."""
        ...

    def jobs(self, job: Job, asked: int | None) -> Jobs:
        """How many processes of the subject there will be at most; ``asked``: None for any."""
        ...

    def open(self, job: Job, count: Jobs, timeout: float, tell: Tell) -> Pool:
        """What computes functions of :mod:`kvparity.run.worker`, whose first argument is ``job``.

        What a task writes into the folder of the run is there when its result comes.
        """
        ...


class Locally(Pools):
    """Processes of this machine; this very process, where subjects may run in it."""

    def seen(self, job: Job) -> Surroundings:
        """What this process runs with."""
        forced = overridden(job.device)
        if forced is not None:
            raise UnsupportedError(forced)
        device = torch.device(job.device)
        setting = environment(device, job.contract.numerics.device)
        return Surroundings(setting, tiles.in_force(job.contract, device))

    def tiles(self, job: Job) -> dict[str, object]:
        """Checked in this process."""
        return tiles.checked(job.contract, torch.device(job.device)).document()

    def jobs(self, job: Job, asked: int | None) -> Jobs:
        """As many as cores and memory allow, where no number is asked for."""
        return jobs_of(asked, device=job.device, kind=job.contract.subject.kind)

    def open(self, job: Job, count: Jobs, timeout: float, tell: Tell) -> Pool:
        """Up to so many processes."""
        if inside():
            return Here()
        return Apart(count.most, timeout, tell, first=worker.start, fit=count.fit)
