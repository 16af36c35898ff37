"""The run folder: what was compared and with what result, written as it becomes known."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from shutil import rmtree

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from kvparity.core.errors import RunFolderError as RunFolderError
from kvparity.core.lock import FILE as LOCK
from kvparity.core.lock import held
from kvparity.core.values import Json, RunLine
from kvparity.relations.asked import Sided
from kvparity.report import run_files, tracebacks
from kvparity.report.document import RunReport
from kvparity.report.kept_contract import FOLDER as KEPT
from kvparity.report.lines import AnyLine, parsed
from kvparity.report.schema import schema_of
from kvparity_contracts.json_types import JsonObject

_NAMED_BY = {
    "cases.jsonl": "id",
    "units.jsonl": "unit",
    "controls.jsonl": "name",
    "paths.jsonl": "path",
    "retries.jsonl": "task",
}
"""The key that every line of a file has."""
_BAD_END = "bad-end.txt"
_BEGINNING = "identity.json.part-"
"""With a process id behind it: what a run that was killed as it began may leave."""
_ABSENT = object()


class Evidence:
    """Appends to a run folder. Several processes may append at once: a line is one write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._counted: dict[str, tuple[int, int]] = {}

    @contextmanager
    def alone(self, identity: JsonObject, *, resume: bool, command: str = "") -> Iterator[None]:
        """:meth:`start`, and keep others from running in the folder until the end.

        A new run that is refused, or fails, before anything is finished leaves no folder.

        Raises:
            RunFolderError: see there, or another process runs in it.
        """
        there = os.path.isdir(self.folder)  # noqa: PTH112 - of any name at all
        if there or not resume:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError:
                self.start(identity, resume=resume)  # it says what is wrong
                raise
        try:
            with held(self.folder, "verify") if there or not resume else nullcontext():
                self.start(identity, resume=resume, command=command)
                try:
                    yield
                except Exception:
                    if not resume:
                        self._withdraw()
                    raise
        except Exception:
            if not there:
                with suppress(OSError):  # there is evidence in it
                    self.folder.rmdir()
            raise

    def start(self, identity: JsonObject, *, resume: bool, command: str = "") -> None:
        """Create the folder, or take it up again.

        ``identity`` says what the run is about; a run may only be resumed under the same.
        ``command``: the one that began the run; a resumed run keeps it.

        Raises:
            RunFolderError: the folder holds another run, or cannot be written.
        """
        try:
            self._start({**identity, "command": command}, resume=resume)
        except OSError as error:
            raise RunFolderError(f"cannot write to {self.folder}: {error.strerror}") from error

    def _start(self, identity: JsonObject, *, resume: bool) -> None:
        head = self.folder / "identity.json"
        if resume:
            if not head.is_file():
                raise RunFolderError(f"{self.folder} holds no run to resume; leave out --resume")
            old = read_identity(head)
            if schema_of(old) != schema_of(identity):
                raise RunFolderError(
                    f"{self.folder} holds a run of schema {schema_of(old)}, whose measures mean "
                    f"other things than those of schema {schema_of(identity)}, so it cannot be "
                    "resumed; use a new --run-dir"
                )
            both = {**old, **identity}  # in order; a key that one of them lacks has changed
            about = [key for key in both if key != "command"]
            changed = [k for k in about if k not in old or old[k] != identity.get(k, _ABSENT)]
            if changed:
                raise RunFolderError(
                    f"{self.folder} cannot be resumed: {', '.join(changed)} changed since it began "
                    "(one report cannot mix results of two set-ups); use a new --run-dir"
                )
            if (self.folder / _BAD_END).exists():
                raise RunFolderError(
                    f"{self.folder} cannot be resumed: the subject's process did not end "
                    f"correctly ({self.folder / _BAD_END} says why); use a new --run-dir"
                )
            for file in _NAMED_BY:  # what else lies here is somebody's own
                run_files.drop_torn_line(self.folder / file)
            tracebacks.drop(self.folder)
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise RunFolderError(f"{self.folder} is a file; give another --run-dir")
        if self.folder.is_dir() and any(map(self._somebodys, self.folder.iterdir())):
            raise RunFolderError(
                f"{self.folder} exists and is not empty; add --resume to finish the run in it, or "
                "give another --run-dir"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{_BEGINNING}{os.getpid()}"
        part.write_text(json.dumps(identity, indent=1))
        try:
            head.hardlink_to(part)  # whole or not at all; of two that begin at once, one does
        except FileExistsError:
            words = f"another kvparity began a run in {self.folder}; give another --run-dir"
            raise RunFolderError(words) from None
        finally:
            part.unlink()
        tracebacks.drop(self.folder)
        (self.folder / "failures").mkdir(exist_ok=True)

    @staticmethod
    def _somebodys(path: Path) -> bool:
        """Whether a run may not begin beside it: more than what a run that failed may leave."""
        ours = path.name == LOCK or path.name.startswith(_BEGINNING)
        return not ours and not tracebacks.alone(path)

    def _withdraw(self) -> None:
        """Leave nothing of a run that finished nothing but what a subject raised."""
        own = {"identity.json", "failures", "paths.jsonl", KEPT, LOCK}
        with suppress(OSError):  # a subject may have taken the folder away
            if any(each.name not in own for each in self.folder.iterdir()):
                return
            (self.folder / "paths.jsonl").unlink(missing_ok=True)
            rmtree(self.folder / KEPT, ignore_errors=True)
            if tracebacks.in_folder(self.folder):
                (self.folder / "identity.json").unlink()
                return
            (self.folder / "failures").rmdir()
            (self.folder / "identity.json").unlink()

    def ended_badly(self, words: str) -> None:
        """Note that no report may be made of this run, although all of it ran."""
        (self.folder / _BAD_END).write_text(words + "\n")

    def command(self) -> str:
        """The command that began the run."""
        return str(read_identity(self.folder / "identity.json").get("command", ""))

    def count(self, file: str) -> int:
        """The number of whole lines of a file, of which only what was added since is read."""
        path = self.folder / file
        if not path.is_file():
            return 0
        size, lines = self._counted.get(file, (0, 0))
        if path.stat().st_size < size:  # it was cut
            size, lines = 0, 0
        with path.open("rb") as opened:
            opened.seek(size)
            added = opened.read()
        self._counted[file] = size + len(added), lines + added.count(b"\n")
        return self._counted[file][1]

    def write(self, line: RunLine) -> None:
        """Add a line to its file."""
        self.append(line.file, line.document())

    def read(
        self, model: type[AnyLine], names: Container[object] | None = None
    ) -> Iterator[tuple[int, AnyLine]]:
        """The lines of a model's file, with the number of each; ``names``: of these alone.

        Raises:
            RunFolderError: a line that is none of ``model``, by file and number.
        """
        key = None if names is None else _NAMED_BY[model.file]
        for number, value in run_files.lines(self.folder / model.file, key):
            if key is None or names is None or value[key] in names:
                yield number, parsed(model, value, f"{self.folder / model.file}:{number}")

    def append(self, file: str, value: Json) -> None:
        """Add one line to a file."""
        line = (json.dumps(value, allow_nan=False) + "\n").encode()
        try:
            handle = os.open(self.folder / file, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
            try:
                written = os.write(handle, line)
            finally:
                os.close(handle)
        except OSError as error:
            raise _unwritten(self.folder / file, error) from error
        if written != len(line):
            raise RunFolderError(f"{self.folder / file}: only a part could be written; disk full?")

    def lines(self, file: str) -> Iterator[Json]:
        """The values appended to a file, in order; see ``run_files.lines``."""
        for _, value in self.numbered(file):
            yield value

    def numbered(self, file: str) -> Iterator[tuple[int, Json]]:
        """The same with the number of each line."""
        return run_files.lines(self.folder / file, _NAMED_BY.get(file))

    def keep_failure(self, case: str, reference: Sided, candidate: Sided) -> str:
        """Both sides of a differing case as safetensors; returns the file's name."""
        tensors: dict[str, Tensor] = {}
        for side, record in (("reference", reference), ("candidate", candidate)):
            tensors |= {f"{side}.{name}": tensor for name, tensor in record.tensors().items()}
        return self._keep(f"failures/{case}.safetensors", tensors, candidate.index)

    def keep_accuracy(self, case: str, found: Sided) -> str:
        """How far each token of an accuracy case is from float64; returns the file's name."""
        return self._keep(f"accuracy/{case}.safetensors", found.tensors(), found.index)

    def _keep(self, name: str, tensors: dict[str, Tensor], index: Sequence[tuple[int, int]]) -> str:
        stored = {key: tensor.cpu().contiguous() for key, tensor in tensors.items()}
        places = json.dumps([list(place) for place in index])
        whole = self.folder / name
        part = whole.with_name(whole.name + ".part")
        try:
            whole.parent.mkdir(exist_ok=True)
            save_file(stored, part, metadata={"index": places})
            part.replace(whole)
        except (OSError, SafetensorError) as error:
            raise _unwritten(self.folder / name, error) from error
        return name

    def keep_trace(self, name: str, text: str) -> Path:
        """Keep what a subject raised in a case or unit; where."""
        return tracebacks.keep(self.folder, name, text)

    def finish(self, report: RunReport) -> None:
        """Write ``run.json``, the whole report or nothing."""
        whole, part = self.folder / "run.json", self.folder / "run.json.part"
        try:
            part.write_text(json.dumps(report.document(), indent=1, allow_nan=False))
            part.replace(whole)
        except OSError as error:
            raise _unwritten(whole, error) from error


def _unwritten(path: Path, error: Exception) -> RunFolderError:
    words = error.strerror if isinstance(error, OSError) else error
    return RunFolderError(f"{path} could not be written: {words}")


def read_identity(head: Path) -> Json:
    """What the run of ``identity.json`` is about."""
    return run_files.whole(head, "path")
