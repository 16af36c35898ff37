"""Records of the toy over two short prompts."""

from __future__ import annotations

from collections.abc import Sequence

import toy
from toy import Toy

from kvparity.plan.schedule import Plan
from kvparity.plan.workload import Prompts
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record.execute import Record
from kvparity.record.path_run import PathRun
from kvparity_contracts.paths import PathName

PROMPTS = Prompts("w", ("w/0", "w/1"), ((5, 6, 7), (9,)), 4)
PLANS = WorkloadPlans(PROMPTS, 3)
TOKENS = [[5, 6, 7, 80, 81, 82, 83], [9, 90, 91, 92, 93]]
INDEX = ((0, 2), (0, 3), (0, 4), (0, 5), (1, 0), (1, 1), (1, 2), (1, 3))


def record(
    path: str, subject: Toy | None = None, tokens: Sequence[Sequence[int]] = TOKENS
) -> Record:
    tokens = [list(t) for t in tokens]
    return PathRun(toy.setting(), subject or Toy(), PLANS, PathName.parse(path), tokens).run()


class Pretender(Toy):
    """Claims the loop that it does not have."""

    def unsupported(self, plan: Plan) -> str | None:
        return None
