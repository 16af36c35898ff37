"""The plans of one workload: each path's is built once, here alone, and carried from then on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from kvparity.plan.paths import build, steps_of
from kvparity.plan.schedule import Member, Plan
from kvparity.plan.workload import Prompts
from kvparity_contracts.draws import ANYTHING, DrawMeans
from kvparity_contracts.paths import PathName


@dataclass(frozen=True)
class WorkloadPlans:
    """A workload's prompts and what each path does with them.

    ``seed``: of the contract; it shuffles what a path shuffles, and draws what a path draws, of
    what is ``given``.
    """

    prompts: Prompts
    seed: int
    given: DrawMeans = ANYTHING
    _built: dict[PathName, Plan] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __reduce__(self) -> tuple[type[WorkloadPlans], tuple[Prompts, int, DrawMeans]]:
        """Other processes are sent prompts, not spans by the thousand."""
        return WorkloadPlans, (self.prompts, self.seed, self.given)

    def of(self, path: PathName) -> Plan:
        """The plan of a path."""
        if path not in self._built:
            self._built[path] = build(path, self.prompts, seed=self.seed, given=self.given)
        return self._built[path]

    def steps(self, path: PathName) -> str:
        """The steps of a path that is drawn, written out; empty for any other."""
        drawn = steps_of(path, self.prompts, self.seed, self.given) if path.kind == "drawn" else ""
        return f"steps({drawn})" if drawn else ""

    @property
    def members(self) -> tuple[Member, ...]:
        """The workload's own sequences, which come first in every plan of a path's steps."""
        return self.of(PathName("prefill")).members

    def part(self, sequences: tuple[int, ...], generate: int) -> WorkloadPlans:
        """The same over some of the sequences, with ``generate`` tokens each."""
        own = self.prompts
        return self.over(
            replace(
                own,
                ids=tuple(own.ids[i] for i in sequences),
                prompts=tuple(own.prompts[i] for i in sequences),
                rows=None if own.rows is None else tuple(own.rows[i] for i in sequences),
                generate=generate,
            )
        )

    def over(self, prompts: Prompts) -> WorkloadPlans:
        """The plans of other prompts, with the same seed."""
        return WorkloadPlans(prompts, self.seed, self.given)
