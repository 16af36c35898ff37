"""Controls: planted defects that a check must catch, or it proves nothing. Pure data.

Every control stands for a defect that was really shipped; ``source`` names the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kvparity_contracts.controls.base import Control
from kvparity_contracts.controls.calls import CALLS
from kvparity_contracts.controls.dispatch import DISPATCH
from kvparity_contracts.controls.inside import INSIDE
from kvparity_contracts.controls.instructions import INSTRUCTIONS
from kvparity_contracts.controls.kernels import OF_KERNELS
from kvparity_contracts.controls.linears import LINEARS
from kvparity_contracts.controls.many_rows import MANY_ROWS
from kvparity_contracts.controls.orders import ORDERS
from kvparity_contracts.controls.places import PLACES
from kvparity_contracts.controls.positions import POSITIONS
from kvparity_contracts.controls.programs import PROGRAMS
from kvparity_contracts.controls.ranks import OF_RANKS
from kvparity_contracts.controls.repeats import REPEATS
from kvparity_contracts.controls.reuse import REUSE
from kvparity_contracts.controls.sampling import SAMPLING
from kvparity_contracts.controls.scores import SCORES
from kvparity_contracts.controls.semantics import SEMANTICS
from kvparity_contracts.controls.sides import OF_SIDES
from kvparity_contracts.controls.stores import STORES
from kvparity_contracts.controls.windows import WINDOWS

__all__ = ["CONTROLS", "Control"]

CONTROLS: Mapping[str, Control] = MappingProxyType(
    {
        each.name: each
        for each in (
            *ORDERS,
            *PLACES,
            *SCORES,
            *SEMANTICS,
            *DISPATCH,
            *LINEARS,
            *INSTRUCTIONS,
            *POSITIONS,
            *SAMPLING,
            *WINDOWS,
            *STORES,
            *REUSE,
            *INSIDE,
            *PROGRAMS,
            *CALLS,
            *MANY_ROWS,
            *OF_KERNELS,
            *OF_SIDES,
            *OF_RANKS,
            *REPEATS,
        )
    }
)
"""All controls by name, in the order in which they are run."""
