"""What a Ray task lets the process of the subject call. Only that process imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvparity.run.on_ray.sent import NodeFound

if TYPE_CHECKING:  # a worker of Ray starts without pydantic
    from kvparity_contracts.json_types import JsonValue


def begin(job: bytes, folder: str, sources: dict[str, str]) -> None:
    """See :mod:`kvparity.run.on_ray.begin`, as of the others."""
    from kvparity.run.on_ray import begin as subject

    subject.begin(job, folder, sources)


def look() -> NodeFound:
    """What is there."""
    from kvparity.run.on_ray import begin as subject

    return subject.look()


def call(text: bytes) -> JsonValue:
    """A function of a worker."""
    from kvparity.run.on_ray import begin as subject

    return subject.call(text)
