"""What was measured of long contexts, its page and its plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
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

LONGEST = (*((kind, 131_072) for kind in KINDS if kind not in ("batch", "cases")), ("pair", 2**20))
"""The longest contexts that the program asks for."""


class LongPoint(TypedDict):
    """What one process found; ``number``: of sequences or of workloads."""

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


class LongContexts(TypedDict, total=False):
    """The file ``long-contexts.json``."""

    command: str
    machine: dict[str, str]
    points: list[LongPoint]


def _chosen(found: LongContexts, kind: str, *, whole: bool = False) -> list[LongPoint]:
    points = [each for each in found["points"] if (each["kind"], each["whole"]) == (kind, whole)]
    return sorted(points, key=lambda each: (each["keys"], each["number"]))


def page(found: LongContexts) -> str:
    """The results as a page."""
    machine = found["machine"]
    lines = [
        "# Long contexts, measured",
        "",
        f"Verifications with [chosen rows](../long-contexts.md) on a CPU ({machine['cpu']}, torch "
        f"{machine['torch']}, Triton {machine['triton']}), one thread, each point a process of its "
        "own: decode against prefill (for the batch, `batched`), bits. Peaks are resident memory, "
        "imports included. The machine was shared, so seconds are those of the CPU; the JSON has "
        f"those of the clock beside them. Made by `{found['command']}`; all of it is in "
        "[long-contexts.json](long-contexts.json).",
        "",
        "![Time and memory by keys, batch and cases](long-contexts.svg)",
        "",
        "| subject | keys | sequences or cases | rows compared | CPU, s | peak, MiB | bits |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for whole in (False, True):
        for kind, about in KINDS.items():
            for each in _chosen(found, kind, whole=whole):
                of = f" of {each['of']:,}" if each["of"] is not None else ", all computed"
                lines.append(
                    f"| {about} | {each['keys']:,} | {each['number']} | {each['rows']:,}{of} | "
                    f"{each['cpu_seconds']:,} | {each['peak_mib']:,} | "
                    f"{', '.join(each['outcomes'])} |"
                )
    lines += [
        "",
        "Time of a pair grows with chosen rows × keys. The decoder's is linear where only windows "
        "lie below the last layer. Two full layers, and transformers models, compute attention of "
        "every row of the lower layers, so theirs grows with the square of the keys; memory does "
        "not, where no score of all rows is held. `differs` is what PyTorch's `sdpa` and products "
        "really do with these shapes.",
    ]
    there = {(each["kind"], each["keys"]) for each in found["points"]}
    missing = [f"{kind} at {keys:,} keys" for kind, keys in LONGEST if (kind, keys) not in there]
    if missing:
        lines += ["", f"Not measured to the end here: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def picture(found: LongContexts) -> str:
    """Time and memory by keys, batch and cases, as an SVG document."""
    from kvparity.core.plots import COLOURS, plain_logarithmic, svg

    def draw(figure: Figure) -> None:
        time, memory, more = figure.subplots(1, 3)
        kinds = [kind for kind in KINDS if kind not in ("batch", "cases")]
        for kind, colour in zip(kinds, COLOURS, strict=False):
            points = _chosen(found, kind)
            if points:
                keys = [each["keys"] for each in points]
                seconds = [each["cpu_seconds"] for each in points]
                time.plot(keys, seconds, "o-", color=colour, label=kind)
                memory.plot(keys, [each["peak_mib"] for each in points], "o-", color=colour)
        time.set(title="Seconds of CPU", xlabel="keys", xscale="log", yscale="log")
        memory.set(title="Peak, MiB", xlabel="keys", xscale="log", yscale="log")
        memory.axhline(4096, color="#b3273e", linestyle="--", linewidth=1.2)
        for kind, colour in zip(("batch", "cases"), COLOURS, strict=False):
            points = _chosen(found, kind)
            numbers = [each["number"] for each in points]
            more.plot(numbers, _seconds(points), "o-", color=colour, label=f"{kind}, seconds")
            peaks = [each["peak_mib"] for each in points]
            more.plot(numbers, peaks, "o--", color=colour, label=f"{kind}, MiB")
        more.set(title="By batch and cases", xlabel="sequences or cases", yscale="log")
        for axes in (time, memory):
            plain_logarithmic(axes.xaxis, 1_000, 1_100_000)
        for axes, high in ((time, 10_000), (memory, 5_000), (more, 1_000)):
            plain_logarithmic(axes.yaxis, 1, high)
        time.legend()
        more.legend()

    return svg(draw, 11, 3.6)


def _seconds(points: Sequence[LongPoint]) -> list[float]:
    return [each["cpu_seconds"] for each in points]
