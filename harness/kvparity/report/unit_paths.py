"""What the paths of a unit ran, told before a case rests on it: no interruption loses it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import cast

from pydantic import JsonValue

from kvparity.plan.thinned import runs
from kvparity.record.execute import Record
from kvparity.report.lines import Launches, PathLine, Row, Run, Sequence, UnitLine
from kvparity_contracts.json_types import JsonObject
from kvparity_contracts.paths import PathName


@dataclass(frozen=True)
class Before:
    """What an interrupted run left of a unit.

    ``ran``: lines of paths. ``repeats``: which paths, when rerun, repeated their bits;
    one case of a unit tells.
    """

    ran: tuple[PathLine, ...] = ()
    repeats: Mapping[str, bool] = field(default_factory=dict)


class UnitPaths:
    """The lines of a unit's paths, each told once, before a case rests on it.

    ``ran``: those of an interrupted run. ``rows``: what is kept of a path's record, to be computed
    again; ``steps``: of a path that was drawn. ``chosen``: the workload chooses which rows are
    compared.
    """

    def __init__(
        self,
        unit: str,
        ran: Iterable[PathLine],
        tell: Callable[[PathLine], None],
        rows: Callable[[PathName, Record], tuple[Row, ...]],
        steps: Callable[[PathName], str],
        chosen: bool = False,
    ) -> None:
        self.unit, self.tell, self.rows, self.steps = unit, tell, rows, steps
        self.chosen = chosen
        self.known = {line.key: line for line in ran}

    def look(
        self,
        records: Mapping[PathName, Record],
        probed: Mapping[PathName, Record],
        seconds: Mapping[str, float],
    ) -> None:
        """Tell of the paths that ran since."""
        for probing, found in ((True, probed), (False, records)):
            for path, record in found.items():
                if (str(path), probing) in self.known:
                    continue
                own: dict[str, object] = {
                    "unit": self.unit,
                    "path": str(path),
                    "probed": probing,
                    "observed": dict(record.observed),
                    "launches": Launches(
                        counts=dict(record.launches.counts), kernels=record.launches.kernels
                    ),
                    "seconds": seconds.get(str(path)),
                }
                if not probing:  # what is not set is not written
                    own["rows"] = self.rows(path, record)
                if self.chosen:
                    own["compared"] = _runs(record)
                if drawn := self.steps(path):
                    own["steps"] = drawn
                line = PathLine.model_validate(own)
                self.known[line.key] = line
                self.tell(line)

    def observed(self) -> Counter[str]:
        """What all of them ran."""
        found: Counter[str] = Counter()
        for line in self.known.values():
            found.update(line.observed)
        return found

    def line(self, sequences: tuple[Sequence, ...], subject: JsonObject) -> UnitLine:
        """The unit's line: of a path that ran with a probe and without, what it ran without."""
        order = sorted(self.known.items(), key=lambda item: not item[0][1])
        known = {path: line for (path, _), line in order}
        return UnitLine(
            unit=self.unit,
            sequences=sequences,
            subject=cast(dict[str, JsonValue], subject),  # the model makes it so
            observed={path: line.observed for path, line in known.items()},
            launches={path: line.launches for path, line in known.items()},
            seconds={path: line.seconds for path, line in known.items() if line.seconds},
            rows={path: line.rows for path, line in known.items() if not line.probed},
        )


def _runs(record: Record) -> tuple[Run, ...]:
    """The rows of a record, those that follow each other together."""
    found: list[Run] = []
    for sequence, each in groupby(record.index, key=itemgetter(0)):
        rows = [position for _, position in each]
        found += [(sequence, start, stop) for start, stop in runs(rows)]
    return tuple(found)
