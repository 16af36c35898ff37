"""Profile compiled kernels without a device; writes docs/results/static-profile.{json,md}.

Every kernel of a decoder at the shapes of Qwen3-8B and Llama-3-8B, in bfloat16 and float32, is
compiled for sm_80, sm_90 and sm_100 with the Triton that is installed, and its code is read.
Nothing is run and nothing is timed. Tiles that a device may one day allow stand beside the base.

    python ci/studies/static_profile.py        all of it: some minutes, more the first time
    python ci/studies/static_profile.py --arch sm_90 --dtype bfloat16 --print
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from multiprocessing import get_context

from study import RESULTS, ROOT

sys.path[:0] = [str(ROOT / name) for name in ("harness", "kernels", "contracts")]
os.environ["TRITON_INTERPRET"] = "0"

import torch  # noqa: E402 - the path and the mode come first
import triton  # noqa: E402
from profile_page import ProfileDocument, ProfileRow, page  # noqa: E402
from profile_reading import Profile, facts, operations, usage  # noqa: E402
from profile_work import Sizes, work  # noqa: E402
from triton import knobs  # noqa: E402

from kvparity.plan.schedule import Layout, Member, Span  # noqa: E402
from kvparity.relations.audit.build import (  # noqa: E402
    compile_launch,
    disassemble,
    ptxas,
    said_of,
)
from kvparity.relations.audit.capture import Launch, captured  # noqa: E402
from kvparity.subjects.decoder.config import DecoderShape  # noqa: E402
from kvparity.subjects.decoder.presets import preset  # noqa: E402
from kvparity.subjects.decoder.seeded import seeded  # noqa: E402
from kvparity.subjects.decoder.subject import DecoderSubject  # noqa: E402
from kvparity_kernels.digest import row_digest  # noqa: E402
from kvparity_kernels.tiles import BASE, candidates, using  # noqa: E402

MODELS = ("qwen3-8b", "llama3-8b")
ARCHS = ("sm_80", "sm_90", "sm_100")
DTYPES = ("bfloat16", "float32")
TILES = "base"
SIZES = {"linear.linear": ("N", "K"), "norm.rms_norm": ("H",), "rope.rotate": ("HEADS",)}
"""Constants that tell two uses of a kernel apart, for people."""


def decoder(config: DecoderShape, dtype: str) -> list[Launch]:
    """One layer of a decoder without weights, its head, its logprobs and their digests."""
    config = replace(config, layers=1)
    weights = seeded(config, 0, getattr(torch, dtype), torch.device("meta"))
    subject = DecoderSubject(config, weights, kv_cache=dtype)
    session = subject.session([Member("a", 6, 3)], Layout())
    with captured() as seen:
        for step in ((Span(0, 0, 4, 3),), (Span(0, 4, 5, 4, decode=True),)):
            for rows in session.forward(step, [[0] * (step[0].stop - step[0].start)]):
                targets = torch.zeros(len(rows), dtype=torch.int64, device="meta")
                subject.values(rows, targets, [1.0])
                row_digest(rows)
    return seen


def of_models(dtype: str) -> Iterator[tuple[str, str, Launch]]:
    """(model, tiles, launch) of every distinct kernel; of other tiles only what they change."""
    seen = set()
    for name, tiles in {TILES: BASE, **candidates()}.items():
        for model in MODELS:
            with using(tiles):
                launches = decoder(preset(model), dtype)
            for launch in launches:
                if launch.form not in seen:
                    seen.add(launch.form)
                    yield model, name, launch


def profiled(arch: str, launch: Launch) -> Profile:
    """Compile one launch and read what came out."""
    built = compile_launch(launch, arch)
    cubin = built.asm["cubin"]
    resources = said_of(cubin, knobs.nvidia.cuobjdump.path, "--dump-resource-usage")
    threads = re.search(r"\.reqntid (\d+)", built.asm["ptx"])
    if threads is None:
        raise ValueError(f"{launch.kernel.name}: its PTX does not say how many threads a block has")
    warps = int(threads[1]) // 32
    found = operations(disassemble(cubin))
    return facts(arch, warps, built.metadata.shared, usage(resources), found)


def rows(arch: str, dtype: str) -> list[ProfileRow]:
    """Every kernel in one format on one architecture."""
    found: list[ProfileRow] = []
    for model, tiles, launch in of_models(dtype):
        kernel, arguments = launch
        numbers = Sizes(launch)
        found.append(
            {
                "kernel": kernel.name,
                "sizes": {name: numbers[name] for name in SIZES.get(kernel.name, ())},
                "model": model,
                "tiles": tiles,
                "dtype": dtype,
                "arch": arch,
                "constants": {name: arguments[name] for name in sorted(kernel.constexprs)},
                **profiled(arch, launch),
                "program": work(launch),
            }
        )
    return found


def document(archs: Sequence[str], dtypes: Sequence[str]) -> ProfileDocument:
    """Compile everything, in as many processes as there are cores."""
    jobs = list(product(archs, dtypes))
    with ProcessPoolExecutor(
        min(len(jobs), len(os.sched_getaffinity(0))), mp_context=get_context("spawn")
    ) as pool:
        kernels = [row for each in pool.map(rows, *zip(*jobs, strict=True)) for row in each]
    return {
        "schema_version": 1,
        "command": "python ci/studies/static_profile.py",
        "device": None,
        "triton": triton.__version__,
        "torch": torch.__version__,
        "ptxas": {arch: ptxas(arch).version for arch in archs},
        "flagged": [
            f"{row['kernel']} {row['dtype']} {row['arch']} {row['tiles']}: {flag}"
            for row in kernels
            for flag in row["flags"]
        ],
        "kernels": kernels,
    }


def lines(document: ProfileDocument) -> str:
    """The document as JSON with a line for each kernel."""
    rows = ",\n  ".join(json.dumps(row) for row in document["kernels"])
    head = json.dumps({name: it for name, it in document.items() if name != "kernels"}, indent=1)
    return f'{head.removesuffix("}").rstrip()},\n "kernels": [\n  {rows}\n ]\n}}\n'


def main(argv: Sequence[str] | None = None) -> int:
    """Write both files, or print one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arch", nargs="+", choices=ARCHS, default=list(ARCHS))
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--print", action="store_true", help="print the page and write nothing")
    args = parser.parse_args(argv)
    found = document(args.arch, args.dtype)
    if args.print:
        print(page(found))
        return 0
    (RESULTS / "static-profile.json").write_text(lines(found))
    (RESULTS / "static-profile.md").write_text(page(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
