"""The one writer of the evidence of a run on Ray. A line counts once, whoever sends it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from kvparity.core.errors import SubjectError
from kvparity.core.values import Json, RunLine
from kvparity.plan.cases import Case, ControlRun, Unit
from kvparity.plan.kernel_cases import KernelCase, KernelControl
from kvparity.plan.results import CaseLine, ControlLine, Place
from kvparity.relations.registry import RELATIONS
from kvparity.report.lines import PathLine, RetryLine, UnitLine, answered
from kvparity.report.retries import control_key
from kvparity.report.run_dir import Evidence
from kvparity.run.on_ray.sent import NodeAbout, SentPart
from kvparity_contracts.json_types import JsonValue

Key = tuple[str, ...]
"""File and name of a line."""
_TIMES = frozenset({"seconds", "place"})
_NAMES: dict[str, tuple[str, ...]] = {
    CaseLine.file: ("id",),
    UnitLine.file: ("unit",),
    ControlLine.file: ("name", "relation"),
    PathLine.file: ("unit", "path", "probed"),
}
_FOLDERS = ("failures", "accuracy")


@dataclass
class PlannedTask:
    """A task of the plan, and how often it was begun. ``cases``: that may come of it, by id.
    ``elsewhere``: nodes that it is not for, where there are others."""

    number: int
    name: str
    cases: Mapping[str, Case | KernelCase]
    unit: str | None = None
    control: tuple[str, str] | None = None
    elsewhere: frozenset[str] = frozenset()
    lost: list[str] = field(default_factory=list)

    @property
    def attempt(self) -> int:
        """The number of the present attempt."""
        return len(self.lost) + 1

    def owns(self, key: Key) -> bool:
        """Whether a line may come of it."""
        file, *names = key
        if file == CaseLine.file:
            return names[0] in self.cases
        if file == ControlLine.file:
            return tuple(names) == self.control
        return self.unit is not None and names[0] == self.unit


def task_of(number: int, what: object) -> PlannedTask:
    """The task of a unit, a case or a control; of anything else, one that writes nothing. Nor does
    one of several runs of a case: the driver compares them."""
    if isinstance(what, Unit):
        return PlannedTask(number, what.id, {case.id: case for case in what.cases}, unit=what.id)
    if isinstance(what, KernelCase):
        return PlannedTask(number, what.id, {what.id: what})
    if isinstance(what, ControlRun | KernelControl):
        named = (what.control, what.relation)
        return PlannedTask(number, f"control {control_key(*named)}", {}, control=named)
    return PlannedTask(number, what.id if isinstance(what, Case) else str(what), {})


@dataclass
class Undertaken:
    """What one process of the subject is to compute, in this order, and what it has sent of it.
    ``seen``: keys of lines."""

    tasks: dict[int, PlannedTask]
    about: NodeAbout | None = None
    seen: set[Key] = field(default_factory=set)

    def answered(self, number: int) -> bool:
        """Whether a task was asked for, which has ended now."""
        task = self.tasks.pop(number, None)
        if task is not None:
            self.seen = {key for key in self.seen if not task.owns(key)}
        return task is not None


class Gathered:
    """Writes what nodes send into a run folder.

    Of every line it remembers a hash, of what is there already as well.
    """

    def __init__(self, evidence: Evidence, versions: Mapping[str, str | None]) -> None:
        self.evidence, self.versions = evidence, dict(versions)
        self._known = {
            _key(file, value): _hash(file, value)
            for file in _NAMES
            for value in evidence.lines(file)
        }

    def take(self, begun: Undertaken, part: SentPart) -> None:
        """Write what is new; files before the lines that name them.

        Raises:
            SubjectError: a line that is none, that is not of these tasks, or stands twice.
            RunFolderError: it cannot be written.
        """
        begun.about = part.about or begun.about
        for name, content in part.files:
            self._file(begun, name, content)
        for file, text in part.lines:
            self._line(begun, file, text)

    def lost(self, begun: Undertaken, why: str) -> None:
        """Note that a machine is gone, for the task that it worked on: the first that did not
        answer. One behind it counts where it had sent something, its answer being on its way."""
        node = None if begun.about is None else begun.about.node
        for at, task in enumerate(begun.tasks.values()):
            if at and not any(task.owns(key) for key in begun.seen):
                continue
            line = RetryLine(
                task=task.name, attempt=task.attempt, node=node, why=why, changed=()
            )  # fmt: skip
            self.evidence.write(line)
            task.lost.append(why)

    def _line(self, begun: Undertaken, file: str, text: str) -> None:
        if file not in _NAMES:
            raise SubjectError(f"a node sent a line of {file!r}, which no task writes")
        value = _object(file, text)
        if "place" in value:
            raise SubjectError("a node sent a case that says itself where it ran")
        key = _key(file, value)
        task = next((each for each in begun.tasks.values() if each.owns(key)), None)
        if task is None:
            raise SubjectError(f"a node sent a line of {_words(key)}, which it was not asked for")
        if key in begun.seen:
            raise SubjectError(f"a node sent {_words(key)} twice")
        begun.seen.add(key)
        placed = self._placed(begun, task, value) if file == CaseLine.file else value
        answered(_model(file, value), placed)  # the only look at it: lines are many
        digest, before = _hash(file, value), self._known.get(key)
        if before is None:
            self._known[key] = digest
            self.evidence.append(file, placed)
        elif before != digest:
            self._changed(begun, task, _resting(task, key), f"{_words(key)} is not as before")

    def _placed(self, begun: Undertaken, task: PlannedTask, value: Json) -> Json:
        if (about := begun.about) is None:
            raise SubjectError("a node sent a case before it said where it is")
        place = Place(
            node=about.node, host=about.host, device=about.device, uuid=about.uuid,
            versions=self.versions, attempts=task.attempt, lost=tuple(task.lost),
        )  # fmt: skip
        return value | {"place": place.document()}

    def _file(self, begun: Undertaken, name: str, content: bytes) -> None:
        path = PurePosixPath(name)
        if len(path.parts) != 2 or path.parts[0] not in _FOLDERS or path.name.startswith("."):
            raise SubjectError(f"a node sent a file {name!r}, which no task writes")
        whole = self.evidence.folder / name
        if path.suffix == ".safetensors" and whole.is_file() and whole.read_bytes() != content:
            task = next((each for each in begun.tasks.values() if path.stem in each.cases), None)
            if task is None:
                raise SubjectError(f"a node sent {name}, which it was not asked for")
            if task.lost or (CaseLine.file, path.stem) in self._known:
                words = f"{name} has other bits than before"
                return self._changed(begun, task, (path.stem,), words)
            # else a run that was interrupted left it, and no case that names it
        whole.parent.mkdir(exist_ok=True)
        part = whole.with_name(f"{whole.name}.part")
        part.write_bytes(content)
        part.replace(whole)
        return None

    def _changed(
        self, begun: Undertaken, task: PlannedTask, changed: Sequence[str], what: str
    ) -> None:
        """Bits that came before are other ones now. The evidence keeps what came first.

        Raises:
            SubjectError: nothing was lost since, so one run of the task gave both.
        """
        if not task.lost:
            raise SubjectError(f"a node sent {what}, and no machine was lost since")
        node = None if begun.about is None else begun.about.node
        self.evidence.write(RetryLine(
            task=task.name, attempt=task.attempt, node=node, why=what, changed=tuple(changed),
        ))  # fmt: skip


def _object(file: str, text: str) -> Json:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise SubjectError(f"a node sent a line of {file} that is no object of JSON: {text[:80]!r}")
    return value


def _model(file: str, value: Json) -> type[RunLine]:
    if file == CaseLine.file:
        relation = value.get("relation")
        if relation not in RELATIONS:
            raise SubjectError(f"a node sent a case of relation {relation!r}")
        return RELATIONS[str(relation)].line
    return next(model for model in (UnitLine, ControlLine, PathLine) if model.file == file)


def _key(file: str, value: Json) -> Key:
    return (file, *(str(value.get(name)) for name in _NAMES[file]))


def _hash(file: str, value: Json) -> str:
    """Of all that an equal task gives again."""
    varies: Iterable[str] = ()
    relation = RELATIONS.get(str(value.get("relation")))  # none in a folder that was edited
    if file == CaseLine.file and relation is not None:
        varies = relation.varies
    lasting = _timeless({key: it for key, it in value.items() if key not in varies})
    return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()


def _timeless(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in _TIMES}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def _resting(task: PlannedTask, key: Key) -> tuple[str, ...]:
    """What does not hold where a line is another than before."""
    file, *names = key
    if file == CaseLine.file:
        return (names[0],)
    if task.control is not None:
        return (control_key(*task.control),)
    if file == UnitLine.file:
        return tuple(task.cases)
    return tuple(
        name for name, case in task.cases.items()
        if isinstance(case, Case) and names[1] in (str(case.path), str(case.reference))
    )  # fmt: skip


def _words(key: Key) -> str:
    return f"the line {', '.join(key[1:])} of {key[0]}"
