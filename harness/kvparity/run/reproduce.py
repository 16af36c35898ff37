"""Cases and controls of *reproduction*: each path run in several processes, and compared."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from kvparity.core.isolation.inside import inside
from kvparity.core.isolation.pool import Pool, PoolTask
from kvparity.core.words import UNFINITE, some
from kvparity.plan.cases import Case, ControlRun, Work
from kvparity.plan.kernel_cases import Unplanted
from kvparity.relations.asked import Planted
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.registry import path_relation
from kvparity.relations.reproduction import ReproductionDetails, RunPlace
from kvparity.report.case_line import case_line, control_line
from kvparity.report.lines import AgainRows, Row, answered
from kvparity.report.run_dir import Evidence
from kvparity.run.again import do_again, name_of
from kvparity.run.unit import Tokens
from kvparity.run.worker import Job
from kvparity_contracts.checks import ReproductionCheck
from kvparity_contracts.contract import Contract

OfSeveral = TypeVar("OfSeveral", Case, ControlRun)
INSIDE = "the subject ran in the process that asked for the run, and in no other"


def apart(asked: object) -> bool:
    """Whether a case or control is of this kind."""
    if not isinstance(asked, Case | ControlRun):
        return False
    return path_relation(asked.relation).apart


@dataclass(frozen=True)
class Processes:
    """Where paths are run: in ``used``, whose processes ran the units, and in others.

    ``others`` opens a pool of new processes.
    """

    used: Pool
    others: Callable[[], Pool]

    def answers(
        self, job: Job, asked: Sequence[OfSeveral], tokens: Mapping[str, Tokens]
    ) -> Iterator[tuple[OfSeveral, list[AgainRows]]]:
        """What each process gave for each of ``asked``; ``tokens``: by name.

        The first process has run other cases, and runs the path twice; the others have run
        nothing, and go through ``asked`` the other way round: no two have the same behind them.
        """
        if not asked:
            return
        found: dict[str, list[AgainRows]] = {}
        for answer in self._run(self.used, job, asked, tokens, found):
            found[answer.name] = [answer]
        most = max(_check(job.contract, each).times for each in asked)
        for number in range(1, most):
            left = [e for e in reversed(asked) if number < _check(job.contract, e).times]
            with self.others() as pool:
                for answer in self._run(pool, job, left, tokens, found):
                    found[answer.name].append(answer)
                pool.finish()
        for each in asked:
            yield each, found[name_of(each)]

    @staticmethod
    def _run(
        pool: Pool,
        job: Job,
        asked: Sequence[Case | ControlRun],
        tokens: Mapping[str, Tokens],
        before: Mapping[str, list[AgainRows]],
    ) -> Iterator[AgainRows]:
        """``before``: what processes gave already, where it is one on another node's turn."""
        tasks = []
        for each in asked:
            name, given = name_of(each), before.get(name_of(each), [])
            nodes = {answer.place.node for answer in given}
            across = _check(job.contract, each).across == "nodes"
            tasks.append(
                PoolTask(
                    do_again,
                    (job, each, tokens[name], 1 if given else 2),
                    frozenset(nodes) if across else frozenset(),
                )
            )
        return (answered(AgainRows, answer) for answer in pool.run(tasks))


def run_cases(
    processes: Processes,
    job: Job,
    work: Work,
    finished: Container[str],
    tokens: Mapping[str, Tokens],
    evidence: Evidence,
    tick: Callable[[str], None],
) -> None:
    """Run those that are not finished; each is a line of the folder when it is compared.

    ``tokens``: by unit.
    """
    pairs = [(case, unit.id) for unit in work.units for case in unit.cases if apart(case)]
    asked = [case for case, _ in pairs if case.id not in finished]
    if inside():
        for case in asked:
            evidence.write(case_line(case, Comparison("void", INSIDE)))
        return
    own = {case.id: tokens[unit] for case, unit in pairs}
    for case, answers in processes.answers(job, asked, own):
        evidence.write(case_line(case, compared(_check(job.contract, case), answers)))
        tick(case.id)


def run_controls(
    processes: Processes,
    job: Job,
    asked: Sequence[ControlRun],
    tokens: Mapping[str, Tokens],
    evidence: Evidence,
) -> Iterator[Unplanted]:
    """Run them; gives those that could not be planted. ``tokens``: by control."""
    if inside():
        for control in asked:
            yield Unplanted(control.control, control.relation, INSIDE, False)
        return
    for control, answers in processes.answers(job, asked, tokens):
        if (reason := answers[0].unplanted) is not None:
            named = job.contract.controls != "all"
            yield Unplanted(control.control, control.relation, reason, named)
            continue
        if (words := next((each.ended for each in answers if each.ended), None)) is not None:
            evidence.write(control_line(control, Planted(False, words)))
            continue
        found = compared(_check(job.contract, control), answers, anywhere=True)
        seen = path_relation(control.relation).seen(found)
        evidence.write(control_line(control, Planted(found.outcome == "differs", seen)))


def compared(
    check: ReproductionCheck, answers: Sequence[AgainRows], *, anywhere: bool = False
) -> Comparison:
    """The rows of every process beside the first's. ``anywhere``: nodes do not matter."""
    places = [each.place for each in answers]
    details = ReproductionDetails(runs=tuple(places))
    first, second = answers[0].rows
    tokens = len(first)

    def void(reason: str) -> Comparison:
        return Comparison("void", reason, tokens=tokens, details=details)

    if not tokens:
        return void("no token was compared")
    for rows, words in _others(second, answers[1:], places):
        if off := _unlike(first, rows):
            row = first[off[0]]
            values = sum(first[at][3] != rows[at][3] for at in off if at < len(rows))
            return Comparison(
                "differs",
                f"{words} gives other bits, first at position {row[1]} of sequence {row[0]}",
                tokens=tokens, differing_tokens=values or len(off), differing_rows=len(off),
                details=details,
            )  # fmt: skip
    if bad := max(each.unfinite for each in answers):
        return Comparison(
            "differs", UNFINITE, tokens=tokens, differing_tokens=bad, differing_rows=bad,
            details=details,
        )  # fmt: skip
    if (idle := next((each.idle for each in answers if each.idle), None)) is not None:
        return void(idle)
    if (lacking := None if anywhere else _too_few(check, places)) is not None:
        return void(lacking)
    words = f"every bit is equal in {len(places)} processes{_where(places)}"
    return Comparison("holds", words, tokens=tokens, details=details)


def _others(
    second: tuple[Row, ...], answers: Sequence[AgainRows], places: Sequence[RunPlace]
) -> Iterator[tuple[tuple[Row, ...], str]]:
    yield second, "a second run in the same process"
    for number, answer in enumerate(answers, 1):
        where = places[number]
        on = "" if where.node == places[0].node else f" on node {where.node}"
        yield answer.rows[0], f"another process{on}"


def _unlike(first: tuple[Row, ...], rows: tuple[Row, ...]) -> list[int]:
    """Numbers of the rows that differ; all of them where other rows were computed."""
    if [row[:2] for row in first] != [row[:2] for row in rows]:
        return list(range(len(first)))
    return [at for at, (row, other) in enumerate(zip(first, rows, strict=True)) if row != other]


def _too_few(check: ReproductionCheck, places: Sequence[RunPlace]) -> str | None:
    """Why there are fewer processes or nodes than the check asks for, or None."""
    processes = {(place.node, place.process) for place in places}
    if len(processes) < check.times:
        return f"{check.times} processes were asked for, and there were {len(processes)}"
    nodes = dict.fromkeys(place.node for place in places)
    if check.across == "nodes" and len(nodes) < check.times:
        ran = f"{some(len(nodes), 'node')} ({', '.join(nodes)})"
        return (
            f"{check.times} nodes were asked for, and it ran on {ran}: give "
            "--ray a cluster with as many nodes that take its tasks"
        )
    return None


def _where(places: Sequence[RunPlace]) -> str:
    nodes = dict.fromkeys(place.node for place in places)
    return f" on {len(nodes)} nodes" if len(nodes) > 1 else ""


def _check(contract: Contract, asked: Case | ControlRun) -> ReproductionCheck:
    found = contract.check(asked.check)
    assert isinstance(found, ReproductionCheck)
    return found
