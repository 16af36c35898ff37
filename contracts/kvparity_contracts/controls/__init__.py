"""Controls: planted defects that a check must catch, or it proves nothing. Pure data.

Every control stands for a defect that was really shipped; ``source`` names the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kvparity_contracts.controls.base import (
    CACHING,
    DECODING,
    EVERY,
    KERNELS,
    LANGUAGE,
    TOGETHER,
    Control,
    SubjectKind,
)
from kvparity_contracts.controls.kernels import OF_KERNELS
from kvparity_contracts.controls.orders import ORDERS
from kvparity_contracts.controls.places import PLACES
from kvparity_contracts.controls.scores import SCORES

__all__ = [
    "CACHING",
    "CONTROLS",
    "DECODING",
    "EVERY",
    "KERNELS",
    "LANGUAGE",
    "TOGETHER",
    "Control",
    "SubjectKind",
]

CONTROLS: Mapping[str, Control] = MappingProxyType(
    {each.name: each for each in (*ORDERS, *PLACES, *SCORES, *OF_KERNELS)}
)
"""All controls by name, in the order in which they are run."""
