"""What the driver and a node send each other. Imports neither torch nor Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from kvparity.core.isolation.child import Message

if TYPE_CHECKING:  # a worker of Ray starts without pydantic
    from kvparity.core.values import Json
    from kvparity_contracts.json_types import JsonValue


@dataclass(frozen=True)
class SentSource:
    """A source file that a subject may need: its path on the driver, and its text."""

    path: str
    text: bytes


@dataclass(frozen=True)
class SentJob:
    """What all tasks of a pool share.

    ``job``: pickled, for the process of the subject alone. ``source``: digest of kvparity's own
    files. ``setting``: the environment document that every node must have; None: not known yet.
    """

    job: bytes
    folder: str
    versions: dict[str, str | None]
    source: str
    setting: Json | None
    sources: tuple[SentSource, ...]
    needs: tuple[str, ...]
    timeout: float


@dataclass(frozen=True)
class SentTask:
    """One task. ``call``: function and arguments behind the job, pickled. ``before``: (file, line)
    of what an interrupted run left of it."""

    number: int
    call: bytes
    before: tuple[tuple[str, str], ...] = ()


class NodeFound(TypedDict):
    """What the process of the subject found: an environment's document, the GPU's own number, and
    the tiles in force by format."""

    environment: Json
    uuid: str | None
    tiles: dict[str, str]


@dataclass(frozen=True)
class NodeAbout:
    """Which node it is, and what its process of the subject found there."""

    node: str
    host: str
    device: str
    uuid: str | None


@dataclass(frozen=True)
class SentPart:
    """What a node sends while it computes: whole lines, with the files that they name.

    ``answers``: by number of the item, once all its lines are sent. ``pool``: its number; 0 of the
    first message of all, that a worker of Ray is there. ``over``: its process has ended.
    """

    about: NodeAbout | None = None
    files: tuple[tuple[str, bytes], ...] = ()
    lines: tuple[tuple[str, str], ...] = ()
    answers: tuple[tuple[int, JsonValue], ...] = ()
    error: Message | None = None
    pool: int = 0
    over: bool = False
