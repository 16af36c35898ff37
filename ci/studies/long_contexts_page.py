"""What was measured of long contexts, its page and its plots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import log
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = {
    "pair": "a pair of kernels (1 head of 64, float32, Triton's interpreter)",
    "window": "reference decoder, a window of 1,024 below a full layer",
    "decoder": "reference decoder, two full layers",
    "sdpa": "transformers (Qwen3, 2 layers, 2 heads of 16), `sdpa`",
    "eager": "the same, `eager`",
    "batch": "so many sequences of the pair in one batch",
    "cases": "so many workloads of the pair, a case each",
}
LEGEND = {
    "pair": "pair of kernels",
    "window": "decoder, window below",
    "decoder": "decoder, two full layers",
    "sdpa": "transformers, sdpa",
    "eager": "transformers, eager",
    "batch": "sequences in one batch",
    "cases": "cases",
}
NUMBERED = ("batch", "cases")
"""Kinds whose number of sequences or workloads grows; of the others it is the keys."""
LONGEST = (*((kind, 131_072) for kind in KINDS if kind not in NUMBERED), ("pair", 2**20))
"""The longest contexts that the program asks for."""
LIMIT_MIB = 4_096
"""What a context of 131,072 keys may take."""


class LongPoint(TypedDict):
    """What one process found; ``number``: of sequences or of workloads; ``load``: of the machine,
    processes that wanted a CPU in the minute before its start and before its end."""

    kind: str
    keys: int
    number: int
    whole: bool
    outcomes: list[str]
    rows: int
    of: int | None
    seconds: float
    cpu_seconds: float
    peak_mib: int
    load: list[float]


class LongContexts(TypedDict, total=False):
    """The file ``long-contexts.json``."""

    command: str
    machine: dict[str, str]
    points: list[LongPoint]


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """Of y ~ x^e through the two points (x, y) with the largest x; None where there are no two.

    On logarithmic axes it is the slope of the last piece of the line.
    """
    last = dict(sorted(points)[-2:])
    if len(last) < 2:
        return None
    (x, y), (further, more) = last.items()
    return log(more / y) / log(further / x)


def chosen(found: LongContexts, kind: str, *, whole: bool = False) -> list[LongPoint]:
    """The points of a kind, in the order in which they grow."""
    points = [each for each in found["points"] if (each["kind"], each["whole"]) == (kind, whole)]
    return sorted(points, key=grown)


def grown(point: LongPoint) -> int:
    """The number that grows from point to point of its kind."""
    return point["number"] if point["kind"] in NUMBERED else point["keys"]


def page(found: LongContexts) -> str:
    """The results as a page."""
    machine = found["machine"]
    loads = [load for each in found["points"] for load in each["load"]]
    lines = [
        "# Long contexts, measured",
        "",
        f"Verifications with [chosen rows](../long-contexts.md) on a CPU ({machine['cpu']}, torch "
        f"{machine['torch']}, Triton {machine['triton']}), one thread, each point a process of its "
        "own: decode against prefill (for the batch, `batched`), bits. Peaks are resident memory, "
        "imports included. The machine has two cores and was shared: its load (processes that want "
        f"a core) was {min(loads):.1f} to {max(loads):.1f}. So all seconds here are those of the "
        "CPU; the JSON also has those of the clock, and the load at each point. Made by "
        f"`{found['command']}`; all of it is in [long-contexts.json](long-contexts.json).",
        "",
        "![Time and memory by keys, batch and cases](long-contexts.svg)",
        "",
        *_growth(found),
        "",
        *_table(found),
        "",
        "`differs` is what PyTorch's `sdpa` and products really do with these shapes.",
    ]
    there = {(each["kind"], each["keys"]) for each in found["points"]}
    missing = [f"{kind} at {keys:,} keys" for kind, keys in LONGEST if (kind, keys) not in there]
    if missing:
        lines += ["", f"Not measured to the end here: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def _growth(found: LongContexts) -> Iterator[str]:
    seconds = min(each["cpu_seconds"] for each in found["points"])
    mib = min(each["peak_mib"] for each in found["points"])
    yield (
        "How time and memory grow, by the last two points of each line: an exponent of 1 is "
        "linear, 2 is the square. Start-up is part of each point (the cheapest took "
        f"{seconds:.0f} s, the smallest {mib} MiB), and makes a short line flatter than its work."
    )
    yield ""
    yield "| subject | grows by | between | exponent of time | exponent of memory |"
    yield "| --- | --- | --- | --- | --- |"
    for whole in (False, True):
        for kind, about in KINDS.items():
            points = chosen(found, kind, whole=whole)
            time = exponent([(grown(each), each["cpu_seconds"]) for each in points])
            memory = exponent([(grown(each), each["peak_mib"]) for each in points])
            if time is None or memory is None:
                continue
            by = {"batch": "sequences", "cases": "cases"}.get(kind, "keys")
            between = " and ".join(f"{grown(each):,}" for each in points[-2:])
            rows = ", all rows computed" if whole else ""
            yield f"| {about}{rows} | {by} | {between} | {time:.2f} | {memory:.2f} |"


def _table(found: LongContexts) -> Iterator[str]:
    yield "| subject | keys | sequences or cases | rows compared | CPU, s | peak, MiB | bits |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for whole in (False, True):
        for kind, about in KINDS.items():
            for each in chosen(found, kind, whole=whole):
                of = f" of {each['of']:,}" if each["of"] is not None else ", all computed"
                yield (
                    f"| {about} | {each['keys']:,} | {each['number']} | {each['rows']:,}{of} | "
                    f"{each['cpu_seconds']:,} | {each['peak_mib']:,} | "
                    f"{', '.join(each['outcomes'])} |"
                )


def picture(found: LongContexts) -> str:
    """Time and memory by keys, batch and cases, as an SVG document."""
    from kvparity.core.plots import svg

    def draw(figure: Figure) -> None:
        (time, memory), (more_time, more_memory) = figure.subplots(2, 2)
        by_keys = [kind for kind in KINDS if kind not in NUMBERED]
        _lines(time, found, by_keys, _seconds, (1_000, 1_100_000), (3, 10_000))
        _lines(memory, found, by_keys, _mib, (1_000, 1_100_000), (256, 8_192))
        _lines(more_time, found, NUMBERED, _seconds, (1, 16), (3, 200))
        _lines(more_memory, found, NUMBERED, _mib, (1, 16), (256, 2_048))
        time.set(title="Time by keys", ylabel="CPU seconds", xlabel="keys")
        memory.set(title="Memory by keys", ylabel="peak, MiB", xlabel="keys")
        count = "sequences, or cases, of 4,096 keys"
        more_time.set(title="Time by batch and cases", ylabel="CPU seconds", xlabel=count)
        more_memory.set(title="Memory by batch and cases", ylabel="peak, MiB", xlabel=count)
        memory.axhline(LIMIT_MIB, color="#b3273e", linestyle="--", linewidth=1.2)
        memory.annotate("4 GiB", (1_000, LIMIT_MIB), (0, 3), textcoords="offset points")
        for power, name in ((1, "linear"), (2, "square")):
            _reference(time, 131_072, 100.0 if power == 1 else 1_000.0, power, name)
        _reference(memory, 1_048_576, 2_000.0, 1, "linear")
        _reference(more_time, 16, 40.0, 1, "linear")
        time.legend(fontsize="small")
        more_time.legend(fontsize="small")

    return svg(draw, 9.5, 7.2)


def _seconds(point: LongPoint) -> float:
    return point["cpu_seconds"]


def _mib(point: LongPoint) -> float:
    return float(point["peak_mib"])


def _lines(
    axes: Axes,
    found: LongContexts,
    kinds: Sequence[str],
    value: Callable[[LongPoint], float],
    across: tuple[float, float],
    up: tuple[float, float],
) -> None:
    from kvparity.core.plots import COLOURS, plain_logarithmic

    for kind, colour in zip(kinds, COLOURS, strict=False):
        if points := chosen(found, kind):
            values = [value(each) for each in points]
            axes.plot(
                [grown(each) for each in points], values, "o-",
                color=colour, markersize=4, label=LEGEND[kind],
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", ylim=up)
    plain_logarithmic(axes.xaxis, *across)
    plain_logarithmic(axes.yaxis, *up)


def _reference(axes: Axes, x: float, y: float, power: int, name: str) -> None:
    """A dotted line that ends at (x, y) and grows by a power of x, over three octaves."""
    begin = x / 8
    axes.plot([begin, x], [y / 8**power, y], ":", color="#555f6b", linewidth=1.2)
    axes.annotate(name, (begin, y / 8**power), (2, -9), textcoords="offset points", fontsize=8)
