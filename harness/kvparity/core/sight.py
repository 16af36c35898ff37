"""Whether the comparison still sees a difference that is known to be there.

What makes it blind need not be a function of Python: a mode of torch that was entered and not left,
or an operator's kernel that was registered again.
"""

from __future__ import annotations

import torch

from kvparity.core.bits import differing
from kvparity_kernels.digest import row_digest

_ONE = ((0.0, 1.0), (1.0, 2.0))
_OTHER = ((-0.0, 1.0), (1.0, 2.000000238418579))  # 2 and one unit in the last place


def blind() -> str | None:
    """What it does not see, in words, or None."""
    one, same, other = (torch.tensor(rows) for rows in (_ONE, _ONE, _OTHER))
    try:
        seen = differing(one, other).tolist()
        digests = [row_digest(rows, twin=True).tolist() for rows in (one, same, other)]
        equal = torch.equal(one, same) and not bool(differing(one, same).any())
    except Exception as error:
        return f"comparing known numbers raises {type(error).__name__}: {error}"
    changed = [left != right for left, right in zip(digests[0], digests[2], strict=True)]
    if seen != [[True, False], [False, True]] or changed != [True, True]:
        return "the comparison no longer sees a known difference"
    if not equal or digests[0] != digests[1]:
        return "the comparison sees a difference between equal numbers"
    return None
