"""``kvparity codec``: what coding the KV cache costs, in bytes and in logprobs."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from kvparity.cli import progress, say
from kvparity.cli.arguments import Verbs, add_contract, add_device, add_json
from kvparity.cli.stop import StopError, drawable, ends
from kvparity.core.exit_codes import ExitCode
from kvparity.report.schema import SCHEMA_VERSION
from kvparity.run.device import settle

if TYPE_CHECKING:
    from kvparity.labs.codec.document import CodecDocument
    from kvparity.labs.codec.prepare import Bench
    from kvparity.labs.codec.registry import CodecPair
    from kvparity_contracts.loader import LoadedContract

_DTYPES = ("float32", "float16", "bfloat16")


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "codec",
        help="measure what KV-cache codecs cost: bytes, error by layer and stage, logprob drift",
        description="Run a contract's subject with its KV cache coded, and report its cost: "
        "bytes, the error of every layer, drift as more layers are coded, the share of each stage "
        "of the codec, and which layers to leave exact.",
        epilog="Codecs: a store format (fp8_e4m3(head), int8(32), int4(32), bfloat16, ...), "
        "nf4(32), the name of an installed one, module:Name or path/to/file.py:Name, each with an "
        "argument in brackets; k=NAME,v=NAME for two. Exit codes: 0 done, 2 bad input, 3 the "
        "subject or a codec failed, or reported a wrong number of bytes.",
    )
    add_contract(parser)
    parser.add_argument(
        "--codec",
        action="append",
        metavar="NAME",
        help="a codec, may be repeated (default: fp8, int8, int4 and nf4)",
    )
    parser.add_argument(
        "--budget",
        metavar="MEASURE=NUMBER",
        help="approx_kl0=1e-4 or max_abs_dlogp=0.05: say which layers to leave exact for it",
    )
    parser.add_argument(
        "--workload", metavar="NAME", help="of the contract (default: its first one)"
    )
    parser.add_argument(
        "--dequantise",
        choices=_DTYPES,
        metavar="DTYPE",
        help="what codes are dequantised to (default: the execution dtype)",
    )
    parser.add_argument(
        "--lengths", metavar="N,N", help="lengths at which stores are really allocated"
    )
    parser.add_argument("--contexts", metavar="N,…", help="lengths at which bytes are calculated")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write codec.json, codec.txt and drift.svg there (needs the extra report)",
    )
    add_json(parser)
    add_device(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Examine; returns the exit code."""
    if args.out is not None:
        drawable("drift.svg")
    with ends(ValueError):
        report = _report(args, settle(args.device))
    return _print(args, report)


def _report(args: argparse.Namespace, device: str) -> CodecDocument:
    import torch

    from kvparity.core import doing, environment
    from kvparity.labs.codec.budget import Budget
    from kvparity.labs.codec.document import CodecDocument, PlannedLayer
    from kvparity.labs.codec.lab import examine_codec
    from kvparity.labs.codec.prepare import prepare
    from kvparity.plan import texts
    from kvparity.plan.kernel_cases import all_numerics
    from kvparity.run.unit import Setting
    from kvparity.run.worker import Job, subject_of
    from kvparity_contracts.files import load_whole
    from kvparity_contracts.library import find

    loaded = texts.given(load_whole(find(args.contract))).loaded
    budget = None if args.budget is None else Budget.parse(args.budget)
    lengths, contexts = _numbers("--lengths", args.lengths), _numbers("--contexts", args.contexts)
    workload = _workload(loaded, args.workload)
    given = [_pair(text) for text in args.codec or ()]
    numerics = all_numerics(loaded.contract)[0]
    _check_subject(loaded, numerics.kv_cache)
    environment.settle()
    job = Job(loaded.contract, loaded.base, device, Path())
    subject = subject_of(job, numerics)
    doing.task(f"rollout and rescore of {workload}")
    bench = prepare(
        Setting(loaded.contract, subject),
        workload,
        execution=getattr(torch, numerics.execution),
        dtype=None if args.dequantise is None else getattr(torch, args.dequantise),
        lengths=lengths,
        progress=progress.line,
    )
    codecs = tuple(
        examine_codec(bench, pair, budget=budget, contexts=contexts)
        for pair in given or _defaults(bench)
    )
    progress.line("")
    return CodecDocument(
        schema_version=SCHEMA_VERSION,
        contract={
            "name": loaded.contract.name,
            "path": str(loaded.path),
            "sha256": loaded.sha256,
        },
        environment=environment.environment(torch.device(device), numerics.device).document(),
        subject=dict(subject.describe()),
        run=bench.run(workload, numerics.kv_cache),
        layer_plan=tuple(
            PlannedLayer(**asdict(layer), layer=number) for number, layer in enumerate(bench.plan)
        ),
        codecs=codecs,
    )


def _check_subject(loaded: LoadedContract, kv_cache: str) -> None:
    kind = loaded.contract.subject.kind
    if kind == "attention":
        raise ValueError(
            f"{loaded.file}: its subject is a pair of kernels, which has no layers and no "
            "logprobs; expected a decoder or a transformers model"
        )
    if kv_cache not in _DTYPES:
        raise ValueError(
            f"{loaded.file}: kv_cache is {kv_cache}, which is a codec already; expected one of "
            f"{', '.join(_DTYPES)}, which the codecs are compared with"
        )


def _pair(text: str) -> CodecPair:
    from kvparity.labs.codec.registry import find

    return find(text, Path.cwd())


def _defaults(bench: Bench) -> list[CodecPair]:
    from kvparity.labs.codec.layers import stored
    from kvparity.labs.codec.registry import defaults

    return [_pair(name) for name in defaults({x.head_dim for x in stored(bench.plan)})]


def _workload(loaded: LoadedContract, name: str | None) -> str:
    names = [workload.name for workload in loaded.contract.workloads]
    if not names:
        raise ValueError(f"{loaded.file}: it has no workload to run")
    if name is not None and name not in names:
        raise ValueError(f"--workload {name!r}: the contract has {', '.join(names)}")
    return name or names[0]


def _numbers(option: str, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise ValueError(f"{option} {text!r}: expected whole numbers from 1 on, commas between")
    return sorted(set(numbers))


def _print(args: argparse.Namespace, report: CodecDocument) -> int:
    from kvparity.labs.codec.picture import draw
    from kvparity.labs.codec.text import render

    text, document = render(report), asdict(report)
    if args.out is not None:
        try:
            args.out.mkdir(parents=True, exist_ok=True)
            saved = json.dumps(document, allow_nan=False)
            (args.out / "codec.json").write_text(saved + "\n", encoding="utf-8")
            (args.out / "codec.txt").write_text(text + "\n", encoding="utf-8")
            (args.out / "drift.svg").write_text(draw(report), encoding="utf-8")
        except OSError as error:
            raise StopError(f"--out {args.out} cannot be written: {error}") from error
    say.result(args, document, text)
    return ExitCode.HOLDS
