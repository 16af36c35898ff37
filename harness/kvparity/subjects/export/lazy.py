"""The way from a subject to its programs; torch's tracers are imported where one is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvparity.plan.schedule import Layout, Member, Plan

if TYPE_CHECKING:
    from kvparity.subjects.export.hf import CompiledSession, ExportedSession, Traced


def refused(subject: Traced, plan: Plan) -> str | None:
    """Why programs of a transformers model cannot run this plan, or None."""
    from kvparity.subjects.export import hf

    return hf.refused(subject, plan)


def open_session(
    subject: Traced, members: Sequence[Member], layout: Layout
) -> ExportedSession | CompiledSession:
    """A session of a transformers model that runs programs."""
    from kvparity.subjects.export import hf

    return hf.open_session(subject, members, layout)
