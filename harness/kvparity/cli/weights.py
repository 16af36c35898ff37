"""``kvparity weights``: two checkpoints, tensor by tensor."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvparity.cli import say
from kvparity.cli.arguments import Verbs, add_json
from kvparity.core.exit_codes import ExitCode

if TYPE_CHECKING:
    from kvparity.gaps.merged import Merged
    from kvparity.gaps.weights import CheckpointComparison, TensorDifference

SHOWN = 20
"""Tensors that differ, farthest first; all are in the document."""


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "weights",
        help="compare two checkpoints, tensor by tensor",
        description="Compare the safetensors of two checkpoints: names, shapes, dtypes, bits and "
        "distances, tied heads, and one fingerprint of each.",
        epilog="Exit codes: 0 equal bits, 1 different, 2 bad input.",
    )
    parser.add_argument("a", type=Path, metavar="A", help="a checkpoint's folder")
    parser.add_argument("b", type=Path, metavar="B", help="another")
    parser.add_argument(
        "--adapter",
        type=Path,
        metavar="FOLDER",
        help="a LoRA adapter that was merged into A to make B: say what rounding took of it",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare; 0 where every tensor has equal bits."""
    from dataclasses import asdict

    from kvparity.gaps.merged import merged
    from kvparity.gaps.report import plain_document
    from kvparity.gaps.weights import compare

    found = compare(args.a, args.b)
    adapted = () if args.adapter is None else merged(args.a, args.adapter, args.b)
    document = {
        "schema_version": 1,
        "verdict": "equal" if found.same else "different",
        **asdict(found),
        "adapted": [asdict(each) for each in adapted],
    }
    text = "\n".join(_lines(args.a, args.b, found, adapted))
    say.result(args, plain_document(document), text)
    return ExitCode.HOLDS if found.same else ExitCode.DIFFERS


def _lines(
    a: Path, b: Path, found: CheckpointComparison, adapted: Sequence[Merged]
) -> Iterator[str]:
    for name, folder, digest, tied in zip(
        "AB", (a, b), found.fingerprints, found.tied, strict=True
    ):
        yield f"{name}  {digest}  {folder}{' (head tied to the embedding)' if tied else ''}"
    if found.differences:
        yield ""
        yield "differs as   elements     max |A - B|   max ulps   tensor"
    farthest = sorted(found.differences, key=lambda each: -(each.max_abs or 0.0))
    yield from (_difference(each) for each in farthest[:SHOWN])
    if len(farthest) > SHOWN:
        yield f"… and {len(farthest) - SHOWN} more (--json lists them)"
    if adapted:
        yield ""
        yield "as rounded   unmoved   lost of the update   tensor"
    for one in adapted:
        yield f"{one.as_rounded:>10.1%} {one.unmoved:>9.1%} {one.lost:>20.1%}   {one.name}"
    yield ""
    total = found.equal + len(found.differences)
    yield (
        f"EQUAL: all {total} tensors have equal bits"
        if found.same
        else f"DIFFERENT: {len(found.differences)} of {total} tensors"
    )


def _difference(each: TensorDifference) -> str:
    share = "" if each.differing is None else f"{each.differing:.1%}"
    far = "" if each.max_abs is None else f"{each.max_abs:.4g}"
    most = "" if each.max_ulps is None else str(each.max_ulps)
    more = ""
    if each.status == "shape":
        more = f" {list(each.shape[0])} against {list(each.shape[1])}"
    if each.status == "dtype":
        more = f" {each.dtype[0]} against {each.dtype[1]}"
    return f"{each.status:<11} {share:>9} {far:>15} {most:>10}   {each.name}{more}"
