"""What the numbers alone suggest: patterns of d that known causes leave.

A signature is a suggestion, never a verdict: it has its evidence, and what would confirm it. Causes
and patterns are those of public reports; each function names its own. Thresholds were chosen so
that clean recordings (noise of a dtype) give none; docs/rollouts.md has the measured rate of false
alarms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from kvparity.gaps.pattern import FEWEST, Pattern, line
from kvparity.gaps.position_patterns import edge, first_or_last, one_row
from kvparity.rollouts.tokens import Doubles, Tokens

Look = Callable[[Tokens], Iterator[Pattern]]


def patterns(tokens: Tokens) -> tuple[Pattern, ...]:
    """All patterns that are there, the most specific first. None in fewer than 24 tokens."""
    if tokens.count < FEWEST or bool(tokens.equal.all()):
        return ()
    found = [each for look in LOOKS for each in look(tokens)]
    explained = {name for each in found for name in EXPLAINS.get(each.name, ())}
    return tuple(each for each in found if each.name not in explained)


def zeros(tokens: Tokens) -> Iterator[Pattern]:
    """A missing logprob stays 0.0 (NeMo-RL#4218; OpenRLHF and SkyRL for observation tokens)."""
    # Renormalised over one kept token, 0.0 is a logprob: only then is what is nearly 1 left alone.
    floor = -1.0 if any(offset(tokens)) else -0.1
    for side, values, other in (
        ("rollout", tokens.rollout, tokens.trainer),
        ("trainer", tokens.trainer, tokens.rollout),
    ):
        at = np.flatnonzero((values == 0) & (other < floor))
        if at.size:
            yield Pattern(
                "zeros",
                "logprobs that were never written stay 0.0",
                f"{at.size} tokens have exactly 0.0 on the side of the {side} and up to "
                f"{float(other[at].min()):.3g} on the other",
                "leave these tokens out by the mask, or find who fills the buffer",
            )


def shifted(tokens: Tokens) -> Iterator[Pattern]:
    """Lists that are one token apart (eval-protocol#457, LightRFT#53)."""
    before = float(np.abs(tokens.d).mean())
    for step in (1, -1):
        d = _shifted(tokens, step)
        if d.size >= FEWEST // 2 and float(np.abs(d).mean()) < 0.1 * before:
            yield Pattern(
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


def temperature(tokens: Tokens) -> Iterator[Pattern]:
    """Raw logprobs against those after temperature (vime#64): z/T - lse against z - lse.

    Then d follows both sides' logprobs, in one direction. Where one side has a large error of its
    own (dropout, other positions), d is that error and follows that side alone.
    """
    slope, share = line(tokens.rollout.astype(np.float64), tokens.d)
    other, also = line(tokens.trainer.astype(np.float64), tokens.d)
    chance = max(0.1, 8 / tokens.count)
    both = slope * other > 0 and min(share, also) > chance and max(share, also) > 0.5
    if both and abs(slope) > 0.02:
        yield Pattern(
            "temperature",
            "one side's logprobs are after temperature, the other's are not",
            f"d follows the logprobs of both sides: slope {slope:+.3g} and {share:.0%} of its "
            f"variance on the rollout's, {other:+.3g} and {also:.0%} on the trainer's; a rollout "
            f"at temperature T against raw logprobs has a slope near T - 1 (T = {1 + slope:.2f})",
            "score again with the logits divided by the temperature of the rollout",
        )


def offset(tokens: Tokens) -> Iterator[Pattern]:
    """Top-p renormalisation adds -log of the kept mass (processed logprobs), which is no tiny one:
    what is farther off was drawn by another model."""
    d = tokens.d
    low, middle, high = (float(it) for it in np.percentile(d, (5, 50, 95)))
    one_sided = min(abs(low), abs(high)) > -0.02 * abs(middle) and low * high >= 0
    if 1e-3 < abs(middle) < 3 and one_sided and abs(high - low) < 3 * abs(middle):
        far = max(abs(low), abs(high))
        yield Pattern(
            "offset",
            "one side renormalises after top-p or top-k, the other does not",
            f"d has one sign: median {middle:+.4g}, nine tenths of {low:+.4g} to "
            f"{high:+.4g}; exp of it, {np.exp(-far):.3f} to {np.exp(-abs(middle)):.3f}, would be "
            "the mass that is kept",
            "score again with the rollout's top_p and top_k, or ask the engine for raw logprobs",
        )


def sequences(tokens: Tokens) -> Iterator[Pattern]:
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
            yield Pattern(
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


def jump(tokens: Tokens) -> Iterator[Pattern]:
    """A single token far off: an expert of a MoE was chosen otherwise (one expert flip: 2.65)."""
    size = np.sort(np.abs(tokens.d))
    few = max(1, tokens.count // 200)
    usual = float(np.percentile(size[:-few], 99))
    if size[-1] > 0.05 and size[-1] > 25 * max(usual, 1e-6):
        outside = int((size > 10 * usual).sum())
        yield Pattern(
            "jump",
            "a discrete choice fell otherwise: an expert of a MoE, a token id, a mask",
            f"{outside} of {tokens.count} tokens are far off (up to {size[-1]:.3g}); 99 % of the "
            f"others are below {usual:.3g}",
            "replay the recorded routes: --routes recorded, or see --explain",
        )


def rare(tokens: Tokens) -> Iterator[Pattern]:
    """Rare tokens only: a head in 16 bits or a vocabulary in chunks rounds their logits."""
    rollout, size = tokens.rollout, np.abs(tokens.d)
    low = rollout < -8
    usual = (rollout >= -6) & (rollout < -1)
    if low.sum() < FEWEST // 4 or usual.sum() < FEWEST // 2:
        return
    there, here = float(size[low].mean()), float(size[usual].mean())
    if there > 8 * max(here, 1e-7) and float(np.median(size[low])) > 2 * here:
        yield Pattern(
            "rare-tokens",
            "the head's product or its log_softmax is in 16 bits on one side",
            f"mean |d| is {there:.3g} where the rollout's logprob is below -8, and {here:.3g} "
            "where it is -6 to -1",
            "score again with the head in float32",
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
