"""The memory that verifications take: what was measured, and its page."""

from __future__ import annotations

from typing import TypedDict

BLOCK = 8  # rows of logits that the subject computes at once
GENERATE = 4  # tokens behind a long context


class Point(TypedDict):
    """What one process found."""

    outcomes: list[str]
    seconds: float
    peak_mib: int


class Rows(Point):
    """A point of ``rows``."""

    vocab: int
    tokens: int


class Context(Point):
    """A point of ``context``."""

    context: int


class Found(TypedDict, total=False):
    """The file ``memory.json``."""

    machine: dict[str, str]
    imports_mib: int
    rows: list[Rows]
    context: list[Context]


def page(found: Found) -> str:
    """The results as a page."""
    base = found["imports_mib"]
    lines = [
        "# Memory",
        "",
        f"Peak resident memory of a process, on a CPU ({found['machine']['cpu']}, torch "
        f"{found['machine']['torch']}), as the operating system counts it. "
        f"{base} MiB of each are the imports. Made by `python ci/studies/bench_memory.py`; the "
        "numbers are in [memory.json](memory.json).",
        "",
        "## Vocabulary and tokens",
        "",
        f"A subject that computes its logits in blocks of {BLOCK} rows, rolled out, rescored and "
        "compared. Rows of all tokens at once would take tokens × vocabulary × 4 bytes, which the "
        "last column shows; what is kept of a row is its logprobs and one digest.",
        "",
        "| vocabulary | tokens | peak, MiB | above the imports, MiB | all rows would be, MiB |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {each['vocab']:,} | {each['tokens']:,} | {each['peak_mib']} | "
        f"{each['peak_mib'] - base} | {each['vocab'] * each['tokens'] * 4 / 2**20:.1f} |"
        for each in found.get("rows", ())
    ]
    lines += [
        "",
        "## A long context",
        "",
        "The project's own kernels in the interpreter, one head of dimension 64 in float32, "
        f"{GENERATE} tokens decoded at the end of the context and rescored by prefill: bits, "
        "float64, and the cache.",
        "",
        "| context | peak, MiB | above the imports, MiB | outcomes |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {each['context']:,} | {each['peak_mib']} | {each['peak_mib'] - base} | "
        f"{', '.join(each['outcomes'])} |"
        for each in found.get("context", ())
    ]
    return "\n".join(lines) + "\n"
