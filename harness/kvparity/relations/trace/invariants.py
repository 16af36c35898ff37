"""What must be true of every line of a trace. One small function each.

Each says True where it holds, False where it cannot be said of this row, and a sentence where it
is broken. Those of a whole line get the line and the one before it in the same sequence and life
(None: the first); those of a layer get the line, the layer's part and the declared shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from kvparity.relations.trace.facts import Facts
from kvparity.relations.trace.lines import Line, Seen

Finding = str | bool
OfLine = Callable[[Line, Line | None], Finding]
OfLayer = Callable[[Line, Seen, Facts], Finding]


def _at(line: Line) -> int:
    """The position that the row was computed at, as far as its model knows."""
    return line.position if line.told is None else line.told


def positions_advance(line: Line, before: Line | None) -> Finding:
    """From row to row the position grows by the number of tokens computed: by one in decode."""
    if before is None:
        return False
    gap = line.place - before.place
    if _at(line) - _at(before) == gap:
        return True
    moved = "stays" if _at(line) == _at(before) else f"goes from {_at(before)} to"
    by = "one" if gap == 1 else str(gap)
    return f"positions advance by {by}: the position {moved} {_at(line)}"


def position_is_place(line: Line, before: Line | None) -> Finding:
    """The position told, and the one computed, is the row's place in its sequence."""
    if line.position != line.place:
        return f"position {line.position} was computed at place {line.place} of the sequence"
    if line.told not in (None, line.place):
        return f"the model was given position {line.told} at place {line.place} of the sequence"
    return True


def cache_is_full(line: Line, seen: Seen, facts: Facts) -> Finding:
    """The cache holds the row's own key and one for every place before it."""
    if seen.length == line.place + 1:
        return True
    return f"the cache holds {seen.length} keys at place {line.place}, expected {line.place + 1}"


def keys_are_the_window(line: Line, seen: Seen, facts: Facts) -> Finding:
    """A row sees min(place + 1, window) keys."""
    expected = facts.keys(seen.layer, line.place)
    if seen.keys == expected:
        return True
    window = facts.window(seen.layer)
    of = "" if window is None else f" in a window of {window}"
    return f"the row at place {line.place} was given {seen.keys} keys{of}, expected {expected}"


def first_key_follows(line: Line, seen: Seen, facts: Facts) -> Finding:
    """The keys end at the row's own: the first is place + 1 - keys."""
    expected = line.place + 1 - seen.keys
    if seen.first == expected:
        return True
    return f"the first of {seen.keys} keys is that of position {seen.first}, expected {expected}"


def donor_is_owner(line: Line, seen: Seen, facts: Facts) -> Finding:
    """Keys and values are those of the layer's owner, found by their bits.

    Not said where several stored layers hold the same, and where no layer holds all of them: then
    single keys differ, which is :func:`keys_as_written`'s to say.
    """
    owner = facts.owner(seen.layer)
    if seen.donors == (owner,):
        return True
    if owner in seen.donors or not seen.donors:
        return False
    others = " and ".join(str(layer) for layer in seen.donors)
    return f"the kernel was given the keys and values of stored layer {others}, expected {owner}"


def keys_as_written(line: Line, seen: Seen, facts: Facts) -> Finding:
    """What is read at earlier positions is what was written there, after its round trip."""
    if not seen.keys:
        return False
    if not seen.strange:
        return True
    return (
        f"{seen.strange} of {seen.keys} keys and values are not those that were written, first at "
        f"position {seen.strange_at}"
    )


def weights_sum_to_one(line: Line, seen: Seen, facts: Facts) -> Finding:
    """Weights made with the kernel's own log-sum-exp sum to 1 as near as float32 can tell.

    The limit is derived in :mod:`.bounds`. Without a log-sum-exp nothing is said.
    """
    if seen.weights is None or seen.weights.recomputed:
        return False
    off, bound = seen.weights.deviation, seen.weights.bound
    if off <= bound:
        return True
    return (
        f"the weights of {seen.keys} keys sum to 1 within {off:.4g} ulps of float32, expected at "
        f"most {bound:.4g}: the kernel's log-sum-exp is that of other scores or other keys"
    )


def out_is_the_mean(line: Line, seen: Seen, facts: Facts) -> Finding:
    """The result is the weighted mean of the values that the kernel was given."""
    if seen.weights is None:
        return False
    if seen.weights.out_ratio <= 1:
        return True
    times = seen.weights.out_ratio
    many = "not a number" if math.isinf(times) else f"{times:.3g} times what rounding allows"
    return (
        f"the result is off by {seen.weights.out_error:.4g} from the mean of the values that the "
        f"weights make, {many}"
    )


def weights_follow_scores(line: Line, seen: Seen, facts: Facts) -> Finding:
    """A row weighs its keys alike only if its scores are alike: entropy < log(keys) - eps.

    Two ways to break it: the result is the plain mean of the values (said of heads where that lies
    farther from the weighted one than rounding could move them), or the scores that the kernel was
    made to compute are flat, though the query's products with the keys are not
    (:mod:`kvparity.relations.trace.weights`).
    """
    weights = seen.weights
    if weights is None or not weights.telling:
        return False
    if weights.uniform:
        return (
            f"attention is uniform over {seen.keys} keys (query heads {_some(weights.uniform)}), "
            f"though the scores ask for {weights.entropy:.4g} nats of log({seen.keys}) = "
            f"{math.log(seen.keys):.4g}"
        )
    if weights.flat:
        return (
            f"attention is uniform over {seen.keys} keys (query heads {_some(weights.flat)}): "
            "their scores are alike, though the query's products with the keys differ"
        )
    return True


def _some(heads: tuple[int, ...]) -> str:
    return ", ".join(str(head) for head in heads[:4]) + (", …" if len(heads) > 4 else "")


OF_LINES: Mapping[str, OfLine] = MappingProxyType(
    {
        "positions advance by one": positions_advance,
        "the position told is the place": position_is_place,
    }
)
OF_LAYERS: Mapping[str, OfLayer] = MappingProxyType(
    {
        "the cache holds position + 1 keys": cache_is_full,
        "a row sees min(position + 1, window) keys": keys_are_the_window,
        "the first key is position + 1 - keys": first_key_follows,
        "a layer reads its owner's cache": donor_is_owner,
        "keys and values are as written": keys_as_written,
        "weights sum to one": weights_sum_to_one,
        "the result is the weighted mean": out_is_the_mean,
        "weights follow the scores": weights_follow_scores,
    }
)
NAMES: tuple[str, ...] = (*OF_LINES, *OF_LAYERS)
