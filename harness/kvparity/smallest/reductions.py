"""Cases that are smaller than another by one thing: a sequence, a token, a head, a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import JsonValue

from kvparity.smallest import fewer_steps
from kvparity.smallest.knobs import knobs
from kvparity.smallest.one_case import PATH, Keys, OneCase
from kvparity_contracts.paths import DECODE, PathName
from kvparity_contracts.steps import WrittenSteps

LOAD = ("workloads", 0)


@dataclass(frozen=True)
class SmallerCase:
    """A case that has less of something: ``before`` of it in the larger one, ``after`` here."""

    what: str
    before: str
    after: str
    case: OneCase


def singles(case: OneCase) -> Iterator[SmallerCase]:
    """Everything that can be smaller, one thing at a time: a case is 1-minimal if none fails."""
    yield from _simple_path(case)
    yield from _sequences(case)
    yield from _steps(case)
    for knob in knobs(case):
        for after, changes in knob.smaller:
            found = case.changed(changes)
            if found is not None:
                yield SmallerCase(knob.name, knob.now, after, found)
    for chunk in chunks(case):
        shorter = with_fewer(case, chunk, 1)
        if shorter is not None:
            now = case.workload.lengths()[chunk.sequence]
            name = f"tokens of prompt {chunk.sequence}"
            yield SmallerCase(name, str(now), str(now - 1), shorter)
    generate = case.workload.generate
    fewer = with_generate(case, generate - 1)
    if fewer is not None:
        yield SmallerCase("generated tokens", str(generate), str(generate - 1), fewer)


def _simple_path(case: OneCase) -> Iterator[SmallerCase]:
    """``decode`` is the simplest path that is none of prefill; a smaller argument."""
    path = case.path
    if path != DECODE and case.check.against != DECODE and path.kind != "prefill":
        found = case.changed({PATH: str(DECODE)})
        if found is not None:
            yield SmallerCase("path", str(path), str(DECODE), found)
    if path.argument is not None and path.kind in ("batched", "verify", "prefix", "paged"):
        for less in sorted({1, path.argument // 2, path.argument - 1} & set(range(path.argument))):
            if less and (found := case.changed({PATH: f"{path.kind}({less})"})) is not None:
                yield SmallerCase("path", str(path), str(found.path), found)


def _sequences(case: OneCase) -> Iterator[SmallerCase]:
    """Without one of the workload's, or one stranger of written steps."""
    own = len(case.workload.lengths())
    count = own
    if case.path.kind == "steps":
        count = WrittenSteps.parse(case.path.steps).sequences
    for i in range(count):
        found = without(case, {i})
        if found is not None:
            yield SmallerCase("sequences", str(count), str(count - 1), found)


def without(case: OneCase, sequences: set[int]) -> OneCase | None:
    """Without some sequences; a workload keeps one at least."""
    own = case.workload
    prompts = case.document["workloads"][0][own.source]  # type: ignore[index,call-overload] # lists
    assert isinstance(prompts, list)
    kept = [each for i, each in enumerate(prompts) if i not in sequences]
    if not kept:
        return None
    changes: dict[Keys, JsonValue] = {(*LOAD, own.source): kept}
    if case.path.kind == "steps":
        steps = WrittenSteps.parse(case.path.steps)
        for i in sorted(sequences, reverse=True):
            steps = fewer_steps.without(steps, i)
        changes[PATH] = str(PathName("steps", steps=str(steps)))
    return case.changed(changes)


def _steps(case: OneCase) -> Iterator[SmallerCase]:
    if case.path.kind != "steps":
        return
    for what, steps in fewer_steps.simpler(WrittenSteps.parse(case.path.steps)):
        found = with_steps(case, steps)
        if found is not None:
            yield SmallerCase("steps", f"with {what}", f"without {what}", found)


def with_steps(case: OneCase, steps: WrittenSteps) -> OneCase | None:
    """The same on other written steps."""
    return case.changed({PATH: str(PathName("steps", steps=str(steps)))})


@dataclass(frozen=True)
class PromptChunk:
    """Tokens of a prompt that one step computes: ``count`` from ``start`` on."""

    sequence: int
    start: int
    count: int


def chunks(case: OneCase) -> list[PromptChunk]:
    """Of every prompt: its chunks in written steps, or the whole."""
    lengths = case.workload.lengths()
    if case.path.kind != "steps":
        return [PromptChunk(i, 0, prompt) for i, prompt in enumerate(lengths)]
    steps = WrittenSteps.parse(case.path.steps)
    return [
        PromptChunk(s.sequence, s.start, min(s.stop, lengths[s.sequence]) - s.start)
        for step in steps.steps[steps.since_reset :]
        for s in step
        if s.sequence < len(lengths) and s.start < lengths[s.sequence]
    ]


def with_fewer(case: OneCase, chunk: PromptChunk, count: int) -> OneCase | None:
    """With the last ``count`` tokens of a chunk of a prompt gone; the prompt keeps one at least."""
    own, i = case.workload, chunk.sequence
    now, first = own.lengths()[i], chunk.start + chunk.count - count
    if now - count < 1 or own.source == "texts":
        return None
    prompt: JsonValue = now - count
    if own.prompts is not None:
        prompt = [*own.prompts[i][:first], *own.prompts[i][first + count :]]
    changes: dict[Keys, JsonValue] = {(*LOAD, own.source, i): prompt}
    if case.path.kind == "steps":
        steps = WrittenSteps.parse(case.path.steps)
        shorter = fewer_steps.shortened(steps, i, first, count)
        changes[PATH] = str(PathName("steps", steps=str(shorter)))
    return case.changed(changes)


def with_generate(case: OneCase, count: int) -> OneCase | None:
    """With fewer generated tokens."""
    if count < 1:
        return None
    changes: dict[Keys, JsonValue] = {(*LOAD, "generate"): count}
    if case.path.kind == "steps":
        steps, fewer = WrittenSteps.parse(case.path.steps), case.workload.generate - count
        for i, total in enumerate(case.workload.totals()):
            steps = fewer_steps.shortened(steps, i, total - fewer - 1, fewer)
        changes[PATH] = str(PathName("steps", steps=str(steps)))
    return case.changed(changes)
