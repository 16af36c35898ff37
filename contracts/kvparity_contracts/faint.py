"""How large a fault of both kernels of a pair is at least, and what rounding takes of a limit.

Measured of exact rows with ``kvparity.controls.reach``, for heads of 64 over the data of a pair; a
test holds these numbers against what is measured today. The verification measures anew, for its
own data; here they only say beforehand which limits will be too wide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from kvparity_contracts.base import DType
from kvparity_contracts.subjects import Attention

ROUNDING: dict[DType, float] = {"bfloat16": 8e-3, "float16": 1e-3, "float32": 1e-5}
"""What a right pair measures at most in max_abs: half a unit in the last place of values up to 4;
in float32 what it loses in its sums."""
EXTRA_KEY = 6.0
"""One key more than a window of W shows moves a row by about this over W."""
PLAIN_CAP, STEEP_CAP = 13.0, 2000.0
"""A softcap of c that is ignored moves a row by about this over c squared: where all scores are
alike, and where they lie far apart."""


def faint(subject: Attention) -> Iterator[tuple[str, float]]:
    """(control, about what it measures) of the faults whose size the contract alone tells."""
    if subject.window is not None:
        yield "window-one-long", EXTRA_KEY / subject.window
    if subject.softcap is not None:
        cap = PLAIN_CAP if subject.queries == "normal" else STEEP_CAP
        yield "softcap-ignored", cap / subject.softcap**2


def between(fault: float, dtype: DType) -> float | None:
    """A limit of one digit that tells the fault and leaves room for rounding; None: there is none.

    Half way between both as factors.
    """
    if fault < 1.25 * ROUNDING[dtype]:
        return None
    middle = math.sqrt(fault * ROUNDING[dtype])
    unit = 10.0 ** math.floor(math.log10(middle))
    found = float(f"{math.floor(middle / unit) * unit:.1g}")
    return found if found > ROUNDING[dtype] else float(f"{middle:.2g}")
