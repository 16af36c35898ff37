"""What every check of a contract says of itself; each relation has a model of its own."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from pydantic import Field

from kvparity_contracts.base import Distinct, Fault, Model, Title
from kvparity_contracts.controls.base import Control
from kvparity_contracts.numerics import Numerics
from kvparity_contracts.paths import DECODE, PREFILL, UNNAMED, Path, PathKind, PathName
from kvparity_contracts.subjects import AnySubject, Transformers

Paths = Distinct[Path]
PADDED = ("padded", "padded-left", "padded-right")


class Check(Model):
    """One claim of a contract. The place of a fault is relative to it.

    ``TAG``: the name of its relation. ``TAKES_NO_TOLERANCE``: why, in a sentence, where people
    look for one. ``CATCHES``: names of controls that it must catch beside those whose own row
    names its relation.
    """

    TAG: ClassVar[str]
    TAKES_NO_TOLERANCE: ClassVar[str] = ""
    CATCHES: ClassVar[tuple[str, ...]] = ()

    name: Title
    """What the check claims, in a few words."""
    relation: str
    """What is compared with what, and how exactly."""

    def faults(self, subject: AnySubject, numerics: Numerics) -> Iterator[Fault]:
        """What is wrong with it beside this subject and these formats."""
        return iter(())

    def limits_in(self, execution: str) -> Mapping[str, float]:
        """Its limits by measure where execution is this format; empty where it has none."""
        return {}


class PathCheck(Check):
    """A check that runs workloads on paths.

    ``INSIDE``: it looks into the subject. ``ONCE``: it has one case for all temperatures, as what
    looks inside has.
    ``SEES_ORDER``: another order of additions changes what it looks at. ``ALIKE``: paths on which
    it looks at nothing that ``decode`` lacks.
    """

    INSIDE: ClassVar[bool] = False
    ONCE: ClassVar[bool] = False
    SEES_ORDER: ClassVar[bool] = True
    ALIKE: ClassVar[tuple[PathKind, ...]] = ()

    paths: Paths
    """The paths that are looked at."""
    workloads: Distinct[str] | None = None
    """Names of the workloads to run; left out, all of them."""

    @property
    def against(self) -> PathName | None:
        """The path that its paths are compared with; None where each is judged alone."""
        return None

    @classmethod
    def shown(cls, control: Control) -> Control | None:
        """The control as such a check would run it, were it meant for it, or None.

        One side is looked at: the planted one. What is handed over to the other stays unseen.
        """
        if control.side == "handover":
            return None
        planted = replace(control, side="both") if control.side == "rescore" else control
        if not cls.INSIDE:
            return planted
        path = DECODE if control.path.kind in cls.ALIKE else control.path
        return replace(planted, path=path, scores_prompt=False)

    def blind(self, subject: AnySubject, path: PathName) -> str | None:
        """Why it cannot look into a path of a subject, or None."""
        if self.INSIDE and isinstance(subject, Transformers) and path.kind in PADDED:
            return (
                f"a {self.relation} check cannot look into a padded batch of a transformers model"
            )
        return None

    def elsewhere(
        self, kinds: Container[str], expected: str, suggestion: str = ""
    ) -> Iterator[Fault]:
        """Fault its paths of these kinds."""
        for i, path in enumerate(self.paths):
            if path.kind in kinds:
                yield Fault(("paths", i), f"found '{path}'", expected, suggestion)


class _Reference(Check):
    reference: Annotated[Path, Field(json_schema_extra={"default": "prefill"})] = PREFILL
    """The path that all others are compared with."""


class Compared(PathCheck, _Reference):  # in this order a contract's keys are listed as they read
    """A check that compares its paths with another one."""

    @property
    def against(self) -> PathName:
        """The reference."""
        return self.reference

    def own_faults(self) -> Iterator[Fault]:
        """No path is the reference, and the reference is one path."""
        if self.reference.kind == "padded":
            yield Fault(("reference",), "found 'padded'", "a single path", "padded-left")
        elif self.reference.kind in UNNAMED:
            yield Fault(("reference",), f"found '{self.reference}'", "a path by name", "prefill")
        for i, path in enumerate(self.paths):
            if path == self.reference:
                message = f"found '{path}', which is the reference itself"
                yield Fault(("paths", i), message, "another path: it would agree with itself")


@dataclass(frozen=True)
class KernelPoint:
    """One case of a check of kernels: at ``keys`` keys, or compiled for ``architecture``."""

    keys: int = 0
    architecture: str = ""


class KernelCheck(Check):
    """A check without paths and workloads: of the kernels themselves, or of two sides.

    ``COMPARES``: what it does, in a sentence, where somebody gives it paths.
    """

    COMPARES: ClassVar[str]

    def points(self, execution: str) -> Iterator[KernelPoint]:
        """Its cases where execution is this format."""
        raise NotImplementedError

    def hidden(self, tile: int) -> str | None:
        """Why no control shows in any of its cases where the order has this tile, or None."""
        return None
