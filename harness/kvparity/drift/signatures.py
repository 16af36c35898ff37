"""What the numbers alone suggest: patterns of d that known causes leave.

A signature is a suggestion, never a verdict: it has its evidence, and what would confirm it. Causes
and patterns are those of public reports; each function names its own. Thresholds were chosen so
that clean recordings (noise of a dtype) give none; docs/rollouts.md has the measured rate of false
alarms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kvparity.rollouts.tokens import Doubles, Tokens

FEWEST = 24
"""Tokens below which no pattern is looked for."""
Where = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Signature:
    """``name``: of the pattern. ``evidence``: measured. ``confirm``: what to try next."""

    name: str
    cause: str
    evidence: str
    confirm: str


Look = Callable[[Tokens], Iterator[Signature]]


def signatures(tokens: Tokens) -> tuple[Signature, ...]:
    """All patterns that are there, the most specific first. None in fewer than 24 tokens."""
    if tokens.count < FEWEST or bool(tokens.equal.all()):
        return ()
    found = [each for look in LOOKS for each in look(tokens)]
    explained = {name for each in found for name in EXPLAINS.get(each.name, ())}
    return tuple(each for each in found if each.name not in explained)


def zeros(tokens: Tokens) -> Iterator[Signature]:
    """A missing logprob stays 0.0 (NeMo-RL#4218; OpenRLHF and SkyRL for observation tokens)."""
    # Renormalised over one kept token, 0.0 is a logprob: only then is what is nearly 1 left alone.
    floor = -1.0 if any(offset(tokens)) else -0.1
    for side, values, other in (
        ("rollout", tokens.rollout, tokens.trainer),
        ("trainer", tokens.trainer, tokens.rollout),
    ):
        at = np.flatnonzero((values == 0) & (other < floor))
        if at.size:
            yield Signature(
                "zeros",
                "logprobs that were never written stay 0.0",
                f"{at.size} tokens have exactly 0.0 on the side of the {side} and up to "
                f"{float(other[at].min()):.3g} on the other",
                "leave these tokens out by the mask, or find who fills the buffer",
            )


def shifted(tokens: Tokens) -> Iterator[Signature]:
    """Lists that are one token apart (eval-protocol#457, LightRFT#53)."""
    before = float(np.abs(tokens.d).mean())
    for step in (1, -1):
        d = _shifted(tokens, step)
        if d.size >= FEWEST // 2 and float(np.abs(d).mean()) < 0.1 * before:
            yield Signature(
                "shift",
                "one side's list is shifted by one token",
                f"mean |d| falls from {before:.3g} to {float(np.abs(d).mean()):.3g} when the "
                f"trainer's list is read {'later' if step == 1 else 'earlier'} by one",
                "compare the ids that each side stored beside its logprobs",
            )


def _shifted(tokens: Tokens, step: int) -> Doubles:
    """d with the trainer's values of the token ``step`` further on, inside of sequences."""
    here = np.arange(tokens.count - 1) + (step < 0)
    inside = ~np.isin(np.arange(1, tokens.count), tokens.starts[1:-1])
    here = here[inside]
    return tokens.trainer[here + step].astype(np.float64) - tokens.rollout[here].astype(np.float64)


def temperature(tokens: Tokens) -> Iterator[Signature]:
    """Raw logprobs against those after temperature (vime#64): z/T - lse against z - lse."""
    slope, share = _line(tokens.rollout.astype(np.float64), tokens.d)
    if share > 0.5 and abs(slope) > 0.02:
        yield Signature(
            "temperature",
            "one side's logprobs are after temperature, the other's are not",
            f"d follows the rollout's logprob: slope {slope:+.3g}, {share:.0%} of its variance; a "
            f"rollout at temperature T against raw logprobs has a slope near T - 1 (T = "
            f"{1 + slope:.2f})",
            "score again with the logits divided by the temperature of the rollout",
        )


def offset(tokens: Tokens) -> Iterator[Signature]:
    """Top-p renormalisation adds -log of the kept mass (processed logprobs)."""
    d = tokens.d
    low, middle, high = (float(it) for it in np.percentile(d, (5, 50, 95)))
    one_sided = min(abs(low), abs(high)) > -0.02 * abs(middle) and low * high >= 0
    if abs(middle) > 1e-3 and one_sided and abs(high - low) < 3 * abs(middle):
        far = max(abs(low), abs(high))
        yield Signature(
            "offset",
            "one side renormalises after top-p or top-k, the other does not",
            f"d has one sign: median {middle:+.4g}, nine tenths of {low:+.4g} to "
            f"{high:+.4g}; exp of it, {np.exp(-far):.3f} to {np.exp(-abs(middle)):.3f}, would be "
            "the mass that is kept",
            "score again with the rollout's top_p and top_k, or ask the engine for raw logprobs",
        )


def first_or_last(tokens: Tokens) -> Iterator[Signature]:
    """Only the first token, or only the last (an end that is appended or cut)."""
    size = np.abs(tokens.d)
    for name, at in (("first", tokens.starts[:-1]), ("last", tokens.starts[1:] - 1)):
        edge = np.zeros(tokens.count, dtype=np.bool_)
        edge[at] = True
        inside, rest = float(np.median(size[edge])), float(np.percentile(size[~edge], 99))
        if edge.sum() >= 3 and (~edge).sum() >= FEWEST and inside > max(5 * rest, 1e-4):
            yield Signature(
                f"{name}-token",
                "the end of a prompt is rendered otherwise"
                if name == "first"
                else "the end token is scored, added or cut otherwise",
                f"median |d| is {inside:.3g} at the {name} compared token of a sequence; 99 % of "
                f"the others are below {rest:.3g}",
                f"look at the ids around the {name} token of one sequence on both sides",
            )


def sequences(tokens: Tokens) -> Iterator[Signature]:
    """Some whole sequences only: other weights (trl#5312, a weight sync that was dropped)."""
    means = np.sort(tokens.sums(np.abs(tokens.d)) / tokens.lengths)
    if means.size < 4:
        return
    steps = (means[1:] + 1e-12) / (means[:-1] + 1e-12)
    cut = int(steps.argmax()) + 1
    low, high = float(means[cut - 1]), float(means[cut])
    spread_low = low / max(float(means[0]), 1e-12)
    long = bool((tokens.lengths >= 4).all())
    if long and high > 5 * low and high > 1e-3 and high / low > 2 * spread_low**0.5:
        far = np.flatnonzero(tokens.sums(np.abs(tokens.d)) / tokens.lengths >= high)
        if _throughout(tokens, far, low):
            names = ", ".join(tokens.names[at] for at in far[:3])
            yield Signature(
                "sequences",
                "some sequences were drawn with other weights",
                f"{far.size} of {means.size} sequences ({names}{', …' if far.size > 3 else ''}) "
                f"have a mean |d| of {high:.3g} and above, the others at most {low:.3g}",
                "compare weight versions: kvparity weights, or weight_versions of the recording",
            )


def _throughout(tokens: Tokens, far: npt.NDArray[np.int64], low: float) -> bool:
    """Whether most tokens of those sequences are far off, not one of them alone."""
    size = np.abs(tokens.d)
    return all(
        float(np.median(size[tokens.starts[at] : tokens.starts[at + 1]])) > 2 * low for at in far
    )


def edge(tokens: Tokens) -> Iterator[Signature]:
    """From a position on (window, page or chunk edge, RoPE scaling), or growing with it."""
    cut = _cut(tokens)
    if cut is None:
        return
    size, along = np.abs(tokens.d), tokens.positions
    before, after = size[along < cut], size[along >= cut]
    near = _near(tokens, cut)
    beside = (
        size[(along < cut) & (along >= cut - near)],
        size[(along >= cut) & (along < cut + near)],
    )
    middle = float(np.median(after))
    if float(np.median(beside[1])) > 4 * float(np.percentile(beside[0], 95)) and middle > 1e-5:
        yield Signature(
            "edge",
            "a window, page, chunk or RoPE setting differs from a position on",
            f"median |d| is {float(np.median(before)):.3g} before position {cut} and {middle:.3g} "
            "from there on",
            f"look for {cut} (and its multiples) among window, page and chunk sizes",
        )
        return
    slope, share = _line(along.astype(np.float64), size)
    low, high = np.percentile(along, (25, 75))
    early, late = float(size[along <= low].mean()), float(size[along >= high].mean())
    if share > 0.2 and slope > 0 and late > 4 * early and late > 1e-5:
        yield Signature(
            "growth",
            "an error that accumulates: cache, position ids, RoPE scaling",
            f"mean |d| grows from {early:.3g} in the first quarter of positions to {late:.3g} in "
            "the last",
            "score one long sequence with and without a cache",
        )


def _cut(tokens: Tokens) -> int | None:
    """The position before and from which on logarithms of |d| are farthest apart."""
    logs = np.log(np.abs(tokens.d) + 1e-9)
    counts = np.bincount(tokens.positions)
    sums = np.bincount(tokens.positions, weights=logs)
    seen, total = np.cumsum(counts), np.cumsum(sums)
    usable = np.flatnonzero((seen >= FEWEST // 2) & (tokens.count - seen >= FEWEST // 2))
    if not usable.size:
        return None
    left = total[usable] / seen[usable]
    right = (total[-1] - total[usable]) / (tokens.count - seen[usable])
    return int(usable[np.argmax(right - left)]) + 1


def _near(tokens: Tokens, cut: int) -> int:
    """Positions to look at on each side of a cut, at least a dozen tokens of each."""
    counts = np.bincount(tokens.positions)
    for near in (16, 32, 64, 128):
        if (
            min(counts[max(0, cut - near) : cut].sum(), counts[cut : cut + near].sum())
            >= FEWEST // 2
        ):
            return near
    return int(counts.size)


def jump(tokens: Tokens) -> Iterator[Signature]:
    """A single token far off: an expert of a MoE was chosen otherwise (one expert flip: 2.65)."""
    size = np.sort(np.abs(tokens.d))
    few = max(1, tokens.count // 200)
    usual = float(np.percentile(size[:-few], 99))
    if size[-1] > 0.05 and size[-1] > 25 * max(usual, 1e-6):
        outside = int((size > 10 * usual).sum())
        yield Signature(
            "jump",
            "a discrete choice fell otherwise: an expert of a MoE, a token id, a mask",
            f"{outside} of {tokens.count} tokens are far off (up to {size[-1]:.3g}); 99 % of the "
            f"others are below {usual:.3g}",
            "compare routed experts at these tokens, or replay the recorded routes",
        )


def rare(tokens: Tokens) -> Iterator[Signature]:
    """Rare tokens only: a head in 16 bits or a vocabulary in chunks rounds their logits."""
    rollout, size = tokens.rollout, np.abs(tokens.d)
    low = rollout < -8
    usual = (rollout >= -6) & (rollout < -1)
    if low.sum() < FEWEST // 4 or usual.sum() < FEWEST // 2:
        return
    there, here = float(size[low].mean()), float(size[usual].mean())
    if there > 8 * max(here, 1e-7) and float(np.median(size[low])) > 2 * here:
        yield Signature(
            "rare-tokens",
            "the head's product or its log_softmax is in 16 bits on one side",
            f"mean |d| is {there:.3g} where the rollout's logprob is below -8, and {here:.3g} "
            "where it is -6 to -1",
            "score again with the head in float32",
        )


def one_row(tokens: Tokens) -> Iterator[Signature]:
    """Equal at the first token, which prefill computed, and not behind it: steps of one row."""
    equal = tokens.equal
    first = np.zeros(tokens.count, dtype=np.bool_)
    first[tokens.starts[:-1]] = True
    if first.sum() < 4 or (~first).sum() < FEWEST:
        return
    at_first, behind = float(equal[first].mean()), float(equal[~first].mean())
    if at_first == 1.0 and behind < 0.5 ** (4 / float(first.sum())) and behind < 0.75:
        yield Signature(
            "one-row-steps",
            "the engine's decode steps of one row reduce otherwise than its prefill",
            f"the first drawn token of every sequence has equal bits, and {behind:.0%} of those "
            "behind it",
            "score the same tokens by the engine's own prefill; draw several sequences at once",
        )


LOOKS: tuple[Look, ...] = (
    zeros,
    shifted,
    temperature,
    offset,
    first_or_last,
    sequences,
    edge,
    jump,
    rare,
    one_row,
)
EXPLAINS = {
    "zeros": ("jump", "temperature", "first-token", "last-token", "sequences"),
    "shift": ("temperature", "offset", "jump", "rare-tokens", "sequences", "edge", "growth"),
    "temperature": ("rare-tokens", "offset", "jump"),
    "sequences": ("jump", "edge", "growth", "one-row-steps"),
    "first-token": ("jump", "edge"),
    "last-token": ("jump", "edge"),
    "edge": ("growth", "jump", "one-row-steps"),
    "growth": ("one-row-steps",),
    "offset": ("rare-tokens", "jump"),
    "rare-tokens": ("jump",),
}
"""What a signature explains is not told a second time."""


def _line(x: Doubles, y: Doubles) -> tuple[float, float]:
    """Slope of the least-squares line, and the share of y's variance that it explains."""
    x, y = x - x.mean(), y - y.mean()
    xx, yy = float(x @ x), float(y @ y)
    if xx == 0 or yy == 0:
        return 0.0, 0.0
    slope = float(x @ y) / xx
    return slope, slope * slope * xx / yy
