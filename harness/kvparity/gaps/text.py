"""A report on one screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kvparity.core.words import some
from kvparity.gaps.curves import Bin
from kvparity.gaps.explain import Explanation, FlipTrial
from kvparity.gaps.flips import RouteFlips
from kvparity.gaps.pattern import Pattern
from kvparity.gaps.report import DriftReport
from kvparity.gaps.spelling import line
from kvparity.gaps.token import Token
from kvparity.rollouts.metrics import Core, Metrics

BAR = 24
"""Columns of the longest bar."""
TEXT = 40
"""Columns of a token's text with those beside it."""


def render(
    found: DriftReport,
    names: Mapping[str, Mapping[str, float]],
    explained: Explanation | None = None,
) -> str:
    """For people; the verdict last."""
    lines = [*_lines(found, names)]
    if explained is not None:
        lines += ["", *explained_lines(explained)]
    return "\n".join([*lines, "", f"{found.verdict.upper()}: {found.reason}"])


def _lines(found: DriftReport, names: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    yield f"rollout  {found.rollout.name} ({found.rollout.layout})"
    yield f"trainer  {found.trainer.name} ({found.trainer.layout})"
    yield f"matched  {_matched(found)}"
    for each in found.found:
        yield f"found    {each.text}"
    if found.metrics is not None:
        yield ""
        yield from _numbers(found.metrics)
        yield ""
        if found.worst:
            yield from _worst(found.worst)
            yield ""
        yield from _bars("position", found.by_position)
        yield ""
        yield from _bars("logprob", found.by_logprob)
        yield from _sequences(found)
        yield from _patterns(found.patterns)
    for framework, values in names.items():
        yield ""
        yield f"by the names of {framework}"
        yield from (f"  {name:<46} {value:.6g}" for name, value in values.items())


def _matched(found: DriftReport) -> str:
    parts = [some(found.pairs, "sequence")]
    if found.metrics is not None:
        parts[0] += f", {some(found.metrics.tokens, 'token')} compared"
    if found.unmatched:
        names = ", ".join(found.unmatched_names[:3])
        more = ", …" if found.unmatched > 3 else ""
        parts.append(f"{found.unmatched} have no counterpart ({names}{more})")
    if found.unused:
        parts.append(f"{found.unused} of the trainer's belong to none")
    return "; ".join(parts)


def _numbers(measured: Metrics) -> Iterator[str]:
    every, rest = measured.all, measured.without_worst
    yield "d = trainer - rollout                   all tokens    without the worst"
    for label, name in (
        ("mean |d|", "mean_abs_d"),
        ("max |d|", "max_abs_d"),
        ("k1, mean of -d", "k1"),
        ("k3, mean of e^d - 1 - d", "k3"),
        ("effective sample size, tokens", "ess_tokens"),
        ("effective sample size, sequences", "ess_sequences"),
    ):
        yield f"  {label:<34} {_value(every, name):>13} {_value(rest, name):>20}"
    yield f"  {'equal bits':<34} {measured.equal_bits:>12.1%}"
    yield f"  {'e^d outside of 0.8 to 1.2':<34} {measured.outside_clip:>12.1%}"
    yield "  |d| percentiles   " + _percentiles(measured.abs_percentiles)
    yield "  e^d percentiles   " + _percentiles(measured.ratio_percentiles)
    if measured.clamped_tokens or measured.clamped_sequences:
        yield (
            f"  sample sizes clamp |d| at 20: that acted on "
            f"{some(measured.clamped_tokens, 'token')} and "
            f"{some(measured.clamped_sequences, 'sequence')}, so they look better than they are"
        )


def _value(core: Core | None, name: str) -> str:
    return "-" if core is None else f"{getattr(core, name):.4g}"


def _percentiles(found: tuple[tuple[float, float], ...]) -> str:
    return "  ".join(f"p{at:g} {value:.4g}" for at, value in found)


def _worst(worst: tuple[Token, ...]) -> Iterator[str]:
    head = "worst tokens         position   token      rollout      trainer            d"
    yield head if all(each.text is None for each in worst) else f"{head}  text"
    for each in worst:
        numbers = (
            f"  {each.sequence[:18]:<18} {each.position:>8} {each.token_id:>7} "
            f"{each.rollout:>12.6g} {each.trainer:>12.6g} {each.d:>12.4g}"
        )
        yield f"{numbers}  {line(each, TEXT)}".rstrip()


def _bars(along: str, bins: tuple[Bin, ...]) -> Iterator[str]:
    longest = max((each.mean_abs_d for each in bins), default=0.0)
    yield f"by {along:<16} tokens    mean |d|       k3   equal"
    for each in bins:
        length = round(BAR * each.mean_abs_d / longest) if longest else 0
        where = f"{each.low:g} to {each.high:g}"
        yield (
            f"  {where:<15} {each.tokens:>9} {each.mean_abs_d:>11.3g} {each.k3:>8.1e} "
            f"{each.equal_bits:>7.1%} {'█' * length}"
        )


def _sequences(found: DriftReport) -> Iterator[str]:
    """The few that are farthest apart, where there are more than one."""
    if len(found.by_sequence) < 2:
        return
    yield ""
    yield "worst sequences          tokens    mean |d|       k3   equal"
    for each in sorted(found.by_sequence, key=lambda it: -it.mean_abs_d)[:3]:
        yield (
            f"  {each.sequence[:20]:<20} {each.tokens:>9} {each.mean_abs_d:>11.3g} "
            f"{each.k3:>8.1e} {each.equal_bits:>7.1%}"
        )


def _patterns(found: tuple[Pattern, ...]) -> Iterator[str]:
    for each in found:
        yield ""
        yield f"suggests: {each.cause} ({each.name})"
        yield f"  {each.evidence}"
        yield f"  to confirm: {each.confirm}"


def explained_lines(found: Explanation) -> Iterator[str]:
    """What was flipped, and what that removed."""
    if found.smallest == ():
        yield "nothing to explain: as it is, every token has equal bits"
        return
    shown = any(each.flips is not None for each in (found.base, *found.singles))
    head = "flipped                                                 k3      removed   equal bits"
    yield head + "   rerouted" * shown
    yield _trial(found, found.base, "nothing")
    for each in (*found.singles, *found.together[:5]):
        yield _trial(found, each, " + ".join(each.factors))
    if found.smallest is not None:
        yield f"explained: {' + '.join(found.smallest)} gives equal bits"
    else:
        yield "not explained: no flip and no combination that was tried gives equal bits"
    if found.base.flips is not None:
        yield from _rerouted(found.base.flips)
    yield from (f"not tried: {each}" for each in found.untried)


def _rerouted(found: RouteFlips) -> Iterator[str]:
    yield (
        f"experts: {found.rerouted} of {found.tokens} tokens took others than recorded, with "
        f"{found.k3:.1%} of k3 and {found.abs_d:.1%} of |d|"
    )
    if found.rerouted:
        layers = ", ".join(f"layer {layer}: {count}" for layer, count in found.layers if count)
        yield f"  {layers}"
    for each in found.worst:
        yield (
            f"  {each.sequence} position {each.position}, first in layer {each.layer}: recorded "
            f"{list(each.before)}, model {list(each.after)}, d {each.d:.4g}"
        )


def _trial(found: Explanation, trial: FlipTrial, name: str) -> str:
    numbers = trial.numbers
    assert numbers is not None
    share = found.removed(trial)
    removed = f"{share:.1%}" if share > -1 else f"grew ×{1 - share:.3g}"
    removed = "" if trial is found.base else removed
    wide = f"  {name:<48}" if len(name) <= 48 else f"  {name}\n{'':<50}"
    line = f"{wide} {numbers.k3:>9.2e} {removed:>12} {numbers.equal_bits:>12.1%}"
    if trial.flips is None or trial is found.base:
        return line
    return f"{line} {trial.flips.rerouted / trial.flips.tokens:>10.1%}"
