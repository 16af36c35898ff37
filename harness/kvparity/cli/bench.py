"""``kvparity bench``: what invariance costs on this CUDA device."""

from __future__ import annotations

import argparse
import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from kvparity.cli import progress, say
from kvparity.cli.arguments import Verbs, add_json
from kvparity.cli.stop import StopError, drawable
from kvparity.core.exit_codes import ExitCode
from kvparity.core.versions import lines as outside_line
from kvparity.labs.bench.cases import SHAPES, WHATS

if TYPE_CHECKING:
    from kvparity.labs.bench.calls import TileChoice
    from kvparity.labs.bench.document import BenchDocument
    from kvparity.labs.bench.goals import GoalRow
    from kvparity.labs.bench.measure import CaseTimes

FORMATS = ("bfloat16", "float16", "float32")
IN_FORCE = "in-force"


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "bench",
        help="time the fixed-order kernels beside torch's and FlashInfer's on a CUDA device",
        description="Time this project's attention, linear and logprob kernels and a whole decoder "
        "step on a CUDA device beside other implementations, at the shapes of a model: "
        "CUDA graphs, rotating random inputs, interleaved, medians with their spread. Ratios use "
        "times of one run. Goals are shown beside what was reached.",
        epilog="Exit codes: 0 measured, 2 bad input, 3 no CUDA device or a kernel failed.",
    )
    parser.add_argument(
        "--shape", choices=sorted(SHAPES), default="qwen3-8b", help="default: qwen3-8b"
    )
    parser.add_argument("--dtype", choices=FORMATS, default=FORMATS[0], help="default: bfloat16")
    parser.add_argument(
        "--only", nargs="+", choices=WHATS, default=WHATS, metavar="WHAT",
        help=f"some of {', '.join(WHATS)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--tiles", default=IN_FORCE, metavar="CHOICE",
        help="our tiles: base, in-force (what was measured for this device), or the name of a "
        "candidate (default: in-force)",
    )  # fmt: skip
    parser.add_argument(
        "--candidates", action="store_true",
        help="also time attention and linear with every candidate of tiles",
    )  # fmt: skip
    parser.add_argument(
        "--show", type=Path, metavar="FILE", help="show a saved document; nothing is measured"
    )
    parser.add_argument(
        "--svg",
        type=Path,
        metavar="FILE",
        help="draw the prices into FILE (needs the extra report)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure or show; returns the exit code."""
    from kvparity.labs.bench.goals import judge
    from kvparity.labs.bench.measure import read

    if args.svg is not None:
        drawable("the picture of prices")
    if args.show is not None:
        try:
            document: BenchDocument = json.loads(args.show.read_text(encoding="utf-8"))
            found, goals = read(document), judge(document)
        except (OSError, ValueError, TypeError) as error:
            raise StopError(f"{args.show}: {error}") from error
    else:
        import torch

        _check_tiles(args.tiles)
        if not torch.cuda.is_available():
            words = (
                f"there is no CUDA device here (torch {torch.__version__}); times of kernels in "
                "Triton's interpreter would say nothing"
            )
            raise StopError(words, ExitCode.ERROR)
        document = _measure(args)
        found, goals = read(document), judge(document)
        document["goals"] = [row.json() for row in goals]
    return _tell(args, document, found, goals)


def _check_tiles(name: str) -> None:
    from kvparity_kernels.tiles import candidates

    known = ("base", IN_FORCE, *candidates())
    if name not in known:
        raise StopError(f"--tiles {name!r} is unknown; expected one of {', '.join(known)}")


def _choice(args: argparse.Namespace) -> TileChoice:
    """The tiles of this run, settled once: a variant of ours gets the same."""
    import torch

    from kvparity.labs.bench.calls import TileChoice
    from kvparity_kernels.rules import current
    from kvparity_kernels.tiles import BASE, candidates

    known = candidates()
    if args.tiles == IN_FORCE:
        tiles = current(torch.device("cuda"), getattr(torch, args.dtype))
    else:
        tiles = known.get(args.tiles, BASE)
    return TileChoice(tiles, known if args.candidates else {})


def _measure(args: argparse.Namespace) -> BenchDocument:
    from dataclasses import asdict, replace
    from functools import partial

    import torch

    from kvparity.core.environment import environment, settle
    from kvparity.labs.bench.cases import cases
    from kvparity.labs.bench.measure import measure
    from kvparity.labs.bench.timing import Cuda, both, copy_bandwidth, quiet
    from kvparity.labs.bench.ways import calls

    settle()
    shape, identity = replace(SHAPES[args.shape], dtype=args.dtype), uuid.uuid4().hex[:12]
    clock, choice = Cuda(identity), _choice(args)
    before = copy_bandwidth(clock)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    found = []
    with quiet():
        for case in cases(shape, args.only, free=free):
            progress.line(case.name)
            make = partial(calls, case, shape, "cuda", choice)
            found.append(measure(case, make, clock, free=free).json())
            torch.cuda.empty_cache()
    progress.line("")
    return {
        "schema_version": 1,
        "verdict": "measured",
        "run": identity,
        "shape": {"name": args.shape, **asdict(shape)},
        "tiles": {"choice": args.tiles, **asdict(choice.tiles)},
        "copy": both(before, copy_bandwidth(clock)),
        "cases": found,
        "environment": environment(torch.device("cuda")).document(),
    }


def _tell(
    args: argparse.Namespace, document: BenchDocument, found: list[CaseTimes], goals: list[GoalRow]
) -> int:
    from kvparity.labs.bench import text
    from kvparity.labs.bench.picture import draw

    shape, place = document.get("shape", {}), document.get("environment", {})
    title = f"{shape.get('name')}, {shape.get('dtype')}, {place.get('device_name', 'CUDA')}"
    chosen = document.get("tiles", {}).get("choice", IN_FORCE)
    if chosen != IN_FORCE:  # those of a candidate may give other bits
        title += f", tiles {chosen}"
    if args.svg is not None:
        try:
            args.svg.write_text(draw(title, found), encoding="utf-8")
        except (OSError, ValueError) as error:
            raise StopError(f"{args.svg}: {error}") from error
    copy = document.get("copy")
    title = "\n".join([title, *outside_line(place)])
    parts = [title, text.table(found, copy), text.steps(found), text.tiles(found)]
    parts += [text.drift(copy), text.goals(goals)]
    say.result(args, document, "\n\n".join(part for part in parts if part))
    return ExitCode.HOLDS
