"""How large a fault of both kernels of a pair is at least, and what rounding takes of a limit.

Measured of exact rows with ``kvparity.controls.reach``, for heads of 64 over the data of a pair; a
test checks these numbers against what is measured today. The verification measures anew, for its
own data; here they only say beforehand which limits will be too wide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from kvparity_contracts.base import DType
from kvparity_contracts.subjects import Attention

PLAIN: dict[DType, float] = {"bfloat16": 6e-3, "float16": 7.5e-4, "float32": 1e-5}
STEEP: dict[DType, float] = {"bfloat16": 1e-2, "float16": 1.25e-3, "float32": 1e-5}
"""What a right pair measures at most in max_abs, over ``normal`` data and over any other: half a
unit in the last place of its largest values and some of its sums."""
EXTRA_KEY = {"normal": 6.0, "sharp": 6.0, "mixed": 20.0}
"""One key more than a window of W shows moves a row by about this over W."""
IGNORED_CAP = {"normal": 13.0, "sharp": 2000.0, "mixed": 2000.0}
"""A softcap of c that is ignored moves a row by about this over c squared: where all scores are
alike, and where they lie far apart."""


def rounding(subject: Attention, dtype: DType) -> float:
    """What rounding takes of a limit of max_abs, at most."""
    return (PLAIN if subject.queries == "normal" else STEEP)[dtype]


def faint(subject: Attention) -> Iterator[tuple[str, float]]:
    """(control, about what it measures) of the faults whose size the contract alone tells."""
    if subject.window is not None and subject.causal:
        yield "window-one-long", EXTRA_KEY[subject.queries] / subject.window
    if subject.softcap is not None:
        yield "softcap-ignored", IGNORED_CAP[subject.queries] / subject.softcap**2


def between(fault: float, rounded: float) -> float | None:
    """A limit of one digit that tells a fault and leaves room for rounding; None: there is none.

    Half way between both as factors.
    """
    if fault < 1.25 * rounded:
        return None
    middle = math.sqrt(fault * rounded)
    unit = 10.0 ** math.floor(math.log10(middle))
    found = float(f"{math.floor(middle / unit) * unit:.1g}")
    return found if found > rounded else float(f"{middle:.2g}")
