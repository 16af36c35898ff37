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
EACH = 4_096
"""Keys of each sequence where it is the batch or the cases that grow."""
LIMIT_MIB = 4_096
"""What a context of 131,072 keys may take."""


class LongPoint(TypedDict):
    """What one process found; ``number``: of sequences or of workloads; ``load``: how many
    processes wanted a CPU in the minutes before its start and its end, where it was kept."""

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
    machine: str


class LongContexts(TypedDict, total=False):
    """The file ``long-contexts.json``."""

    command: str
    points: list[LongPoint]
    unfinished: dict[str, float]


def name_of(kind: str, keys: int) -> str:
    """What ``unfinished`` calls a point, of which it has the CPU seconds that were spent."""
    return f"{kind} at {keys:,} keys"


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


def which(point: LongPoint) -> tuple[bool, int, int, int]:
    """By which points are told apart and sorted: as the page has them."""
    return point["whole"], [*KINDS].index(point["kind"]), point["keys"], point["number"]


def machines_of(found: LongContexts) -> list[str]:
    """The machines, by the order of their points."""
    return list(dict.fromkeys(each["machine"] for each in found["points"]))


def grown(point: LongPoint) -> int:
    """The number that grows from point to point of its kind."""
    return point["number"] if point["kind"] in NUMBERED else point["keys"]


def page(found: LongContexts) -> str:
    """The results as a page."""
    loads = [load for each in found["points"] for load in each["load"]]
    machines = [f"{i}: {each}" for i, each in enumerate(machines_of(found), 1)]
    lines = [
        "# Long contexts, measured",
        "",
        "Verifications with [chosen rows](../long-contexts.md) on a CPU, one thread, each point a "
        "process of its own: decode against prefill (for the batch, `batched`), bits. Peaks are "
        f"resident memory, imports included. The machines ({'; '.join(machines)}) were shared: "
        f"where it was kept, the load of their two cores was {min(loads):.0f} to {max(loads):.0f} "
        "processes. So all seconds are those of the CPU, which a load makes longer, too; the JSON "
        f"also has those of the clock. Made by `{found['command']}`; all of it is in "
        "[long-contexts.json](long-contexts.json).",
        "",
        "![Time and memory by keys, batch and cases](long-contexts.svg)",
        "",
        *_growth(found),
        "",
        *_table(found),
        "",
        "Time of a pair grows with chosen rows × keys, that of the decoder with the keys where "
        "only windows lie below the last layer. Two full layers, and transformers models, compute "
        "attention of every row of the lower layers, so their time grows with the square of the "
        "keys; memory does not, where no score of all rows is held. `differs` is what PyTorch's "
        "`sdpa` and products really do with these shapes.",
    ]
    there = {(each["kind"], each["keys"]) for each in found["points"]}
    spent = found.get("unfinished", {})
    missing = [name_of(*each) for each in LONGEST if each not in there]
    words = [f"{each} ({spent[each] / 60:.0f} CPU minutes spent)" if each in spent else each
             for each in missing]  # fmt: skip
    if words:
        lines += ["", f"Not measured to the end: {', '.join(words)}."]
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
            points = chosen(found, kind, whole=whole)[-2:]
            time = exponent([(grown(each), each["cpu_seconds"]) for each in points])
            memory = exponent([(grown(each), each["peak_mib"]) for each in points])
            if time is None or memory is None:
                continue
            by = {"batch": "sequences", "cases": "cases"}.get(kind, "keys")
            between = " and ".join(f"{grown(each):,}" for each in points)
            between += ", of two machines" if points[0]["machine"] != points[1]["machine"] else ""
            rows = ", all rows computed" if whole else ""
            yield f"| {about}{rows} | {by} | {between} | {time:.2f} | {memory:.2f} |"


def _table(found: LongContexts) -> Iterator[str]:
    machines = machines_of(found)
    yield (
        "| subject | keys | sequences or cases | rows compared | CPU, s | peak, MiB | bits | "
        "machine |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for whole in (False, True):
        for kind, about in KINDS.items():
            for each in chosen(found, kind, whole=whole):
                of = f" of {each['of']:,}" if each["of"] is not None else ", all computed"
                yield (
                    f"| {about} | {each['keys']:,} | {each['number']} | {each['rows']:,}{of} | "
                    f"{each['cpu_seconds']:,} | {each['peak_mib']:,} | "
                    f"{', '.join(each['outcomes'])} | {machines.index(each['machine']) + 1} |"
                )


def picture(found: LongContexts) -> str:
    """Time and memory by keys, batch and cases, as an SVG document."""
    from kvparity.core.plots import limit, svg

    def draw(figure: Figure) -> None:
        (time, memory), (more_time, more_memory) = figure.subplots(2, 2)
        by_keys = [kind for kind in KINDS if kind not in NUMBERED]
        _lines(time, found, by_keys, _seconds, (3, 5_000))
        _lines(memory, found, by_keys, _mib, (256, 8_192))
        _lines(more_time, found, NUMBERED, _seconds, (3, 200))
        _lines(more_memory, found, NUMBERED, _mib, (256, 2_048))
        time.set(title="Time by keys", ylabel="CPU seconds", xlabel="keys")
        memory.set(title="Memory by keys", ylabel="peak, MiB", xlabel="keys")
        count = f"sequences, or cases, of {EACH:,} keys"
        more_time.set(title="Time by batch and cases", ylabel="CPU seconds", xlabel=count)
        more_memory.set(title="Memory by batch and cases", ylabel="peak, MiB", xlabel=count)
        limit(memory, y=LIMIT_MIB, name="limit")
        memory.annotate("4 GiB", (1_024, LIMIT_MIB), (0, 3), textcoords="offset points")
        _reference(time, (16_384, 4.0), 1_048_576, 1, "linear")
        _reference(time, (16_384, 4.0), 262_144, 2, "square")
        _reference(memory, (262_144, 270.0), 1_048_576, 1, "linear")
        _reference(more_time, (4, 7.0), 16, 1, "linear")
        _reference(more_memory, (8, 270.0), 16, 1, "linear")
        time.legend(fontsize="small", loc="upper left")
        more_time.legend(fontsize="small", loc="upper left")

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
    up: tuple[float, float],
) -> None:
    """A line for each kind; the axis across is labelled where points are."""
    from kvparity.core.plots import COLOURS, plain_logarithmic

    there: set[int] = set()
    for kind, colour in zip(kinds, COLOURS, strict=False):
        points = chosen(found, kind)
        across = [grown(each) for each in points]
        there.update(across)
        axes.plot(
            across, [value(each) for each in points], "o-",
            color=colour, markersize=4, label=LEGEND[kind],
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", ylim=up)
    axes.set_xticks(sorted(there), [_short(each) for each in sorted(there)])
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    plain_logarithmic(axes.yaxis, *up)


def _short(number: int) -> str:
    """131,072 as ``128k``."""
    for size, letter in ((2**20, "M"), (2**10, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return str(number)


def _reference(axes: Axes, at: tuple[float, float], end: float, power: int, name: str) -> None:
    """A dotted line from a point on, along which y grows by a power of x."""
    top = at[1] * (end / at[0]) ** power
    axes.plot([at[0], end], [at[1], top], ":", color="#555f6b", linewidth=1.2)
    axes.annotate(name, (end, top), (-3, 3), textcoords="offset points", fontsize=8, ha="right")
