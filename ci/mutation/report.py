"""The table by file, and the survivors with their change."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from mutation.jobs import MutantOutcome
from mutation.listed import SourceChange, change
from mutation.mutants import Mutant

KILLED = ("killed", "endless")


@dataclass(frozen=True)
class FileCounts:
    """Counts of one file. ``tried`` have an outcome; ``equivalent`` survived and change nothing."""

    mutants: int
    tried: int
    killed: int
    equivalent: int

    @property
    def rate(self) -> float:
        """Killed, of those tried that are not equivalent; 1 where there are none."""
        counted = self.tried - self.equivalent
        return self.killed / counted if counted else 1.0


@dataclass(frozen=True)
class MutantReport:
    """Of one run: by file, and what is left."""

    rows: Mapping[str, FileCounts]
    survivors: Sequence[tuple[Mutant, SourceChange, str]]
    waiting: Sequence[Mutant]
    """What was not run."""
    seen: Mapping[SourceChange, str]
    """What ``equivalent`` lists though a test kills it; and which."""

    @property
    def nothing_ran(self) -> bool:
        """Whether there are mutants and none has an outcome, so that nothing is shown."""
        return self.whole.mutants > 0 and self.whole.tried == 0

    @property
    def whole(self) -> FileCounts:
        """All files together."""
        rows = self.rows.values()
        return FileCounts(
            sum(row.mutants for row in rows),
            sum(row.tried for row in rows),
            sum(row.killed for row in rows),
            sum(row.equivalent for row in rows),
        )


def report(
    mutants: Sequence[Mutant],
    outcomes: Mapping[str, MutantOutcome],
    equivalent: Mapping[SourceChange, str],
) -> MutantReport:
    """What the outcomes say of these mutants."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    survivors: list[tuple[Mutant, SourceChange, str]] = []
    waiting: list[Mutant] = []
    places = {(each.file, each.owner) for each in equivalent}
    unseen, seen = set[SourceChange](), dict[SourceChange, str]()
    for mutant in mutants:
        count = counts[mutant.file]
        count["mutants"] += 1
        outcome = outcomes.get(mutant.key)
        if outcome is None or outcome.status == "unpatchable":  # that one waits for its run on disk
            waiting.append(mutant)
            continue
        count["tried"] += 1
        if outcome.status in KILLED:
            count["killed"] += 1
            if (mutant.file, mutant.owner) in places and (found := change(mutant)) in equivalent:
                seen[found] = outcome.by
        elif (found := change(mutant)) in equivalent:
            count["equivalent"] += 1
            unseen.add(found)
        else:
            survivors.append((mutant, found, outcome.by or outcome.status))
    rows = {
        file: FileCounts(count["mutants"], count["tried"], count["killed"], count["equivalent"])
        for file, count in sorted(counts.items())
    }
    # two changes of a function may read alike, and only one of them change nothing
    seen = {found: by for found, by in seen.items() if found not in unseen}
    return MutantReport(rows, survivors, waiting, seen)


def survivor(mutant: Mutant, found: SourceChange, status: str) -> str:
    """One survivor, as a diff with its place."""
    how = {"survived": "no test fails", "unreached": "no test reaches it"}.get(status, status)
    before = "".join(f"    - {line}\n" for line in found.before.splitlines())
    after = "".join(f"    + {line}\n" for line in found.after.splitlines())
    return f"{mutant.file}:{mutant.line}: {mutant.owner or 'module'}: {how}\n{before}{after}"


def markdown(found: MutantReport, about: Mapping[str, str]) -> str:
    """The page of docs/results."""
    head = "\n".join(f"- {name}: {value}" for name, value in about.items())
    lines = [
        "| file | mutants | tried | killed | equivalent | killed of the others |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for file, row in [*found.rows.items(), ("**all**", found.whole)]:
        lines.append(
            f"| {file} | {row.mutants} | {row.tried} | {row.killed} | {row.equivalent} "
            f"| {100 * row.rate:.1f} % |"
        )
    return (
        "# Mutants: small faults planted in the deciding files, one at a time\n\n"
        f"{head}\n\n" + "\n".join(lines) + "\n\nSurvivors, with their change, are in "
        "[mutants.json](mutants.json). [How it is done](../mutants.md).\n"
    )


def document(found: MutantReport, about: Mapping[str, str]) -> str:
    """The same as JSON, with the survivors."""
    return (
        json.dumps(
            {
                **about,
                "files": {file: asdict(row) for file, row in found.rows.items()},
                "survivors": [asdict(each) for _, each, _ in found.survivors],
                "waiting": [asdict(change(each)) for each in found.waiting],
            },
            indent=1,
        )
        + "\n"
    )
