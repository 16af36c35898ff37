"""What one side of a case computes: a subject, a path, and the tokens of a workload."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kvparity.core.errors import UnsupportedError
from kvparity.plan.schedule import Member, Plan
from kvparity.plan.workload import Prompts, fill, text_tokens
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record.cache_snapshot import CachePlace, CacheSnapshot, take_snapshot
from kvparity.record.execute import Choose, Record, Tokens, run, unlike
from kvparity.subjects.base import Subject
from kvparity_contracts.contract import Contract
from kvparity_contracts.draws import means
from kvparity_contracts.paths import PathName


@dataclass(frozen=True)
class Setting:
    """What the units of one numerics share."""

    contract: Contract
    subject: Subject

    def plans(self, workload: str) -> WorkloadPlans:
        """The workload's plans; its prompts fit the subject's vocabulary and positions.

        Raises:
            UnsupportedError: a sequence is longer than the subject's positions, or a token id is
                outside its vocabulary.
        """
        model = next(w for w in self.contract.workloads if w.name == workload)
        try:
            given = means(self.contract)
            prompts = fill(model, seed=self.contract.seed, vocab=self.subject.vocab, given=given)
        except ValueError as error:
            raise UnsupportedError(str(error)) from error
        if prompts.longest > self.subject.max_positions:
            raise UnsupportedError(
                f"workload {workload}: its longest sequence has {prompts.longest} tokens, but the "
                f"subject has {self.subject.max_positions} positions; shorten prompt or generate"
            )
        return WorkloadPlans(prompts, self.contract.seed, given)


@dataclass(frozen=True)
class PathRun:
    """One side of a case: what is run, and over which tokens."""

    setting: Setting
    subject: Subject
    plans: WorkloadPlans
    path: PathName
    tokens: Tokens

    @property
    def prompts(self) -> Prompts:
        """The workload's prompts."""
        return self.plans.prompts

    @property
    def plan(self) -> Plan:
        """The plan of the path."""
        return self.plans.of(self.path)

    def run(
        self,
        *,
        choose: Choose | None = None,
        keep: frozenset[tuple[int, int]] = frozenset(),
        cut: Callable[[Plan], Plan] = lambda plan: plan,
    ) -> Record:
        """Run it over the workload's own tokens; strangers and donors bring theirs.

        ``cut``: the part of the path's plan that is run.
        """
        plan, tokens, vocab = cut(self.plan), self.tokens, self.subject.vocab
        others = plan.members[len(self.prompts.ids) :]
        known = [*tokens, *(_others(plan, each, tokens, self.plans.seed, vocab) for each in others)]
        return run(
            self.subject,
            plan,
            known,
            temperatures=self.setting.contract.numerics.temperatures,
            choose=choose,
            keep=keep,
            before=[unlike(ids, vocab) for ids in known] if plan.warm_up else None,
        )

    def take_snapshot(self, keep: frozenset[CachePlace] = frozenset()) -> CacheSnapshot:
        """Run it and look at what the cache holds at the end."""
        return take_snapshot(self.plan, self.run, keep)


def _others(plan: Plan, member: Member, tokens: Tokens, seed: int, vocab: int) -> list[int]:
    """Tokens of a stranger, or of a donor, which begins like one of the workload's own."""
    if member.like:
        own = tokens[[each.id for each in plan.members].index(member.like)]
        return own[: member.shared] + unlike(own[member.shared : member.length], vocab)
    if vocab:
        return list(text_tokens(seed, member.id, member.length))
    return [0] * member.length
