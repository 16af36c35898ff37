"""``kvparity order``: in which order a kernel pair adds."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from kvparity.cli import progress, replaceable, say
from kvparity.cli.arguments import Verbs, add_device, add_json
from kvparity.cli.stop import ends
from kvparity.core.exit_codes import ExitCode
from kvparity.run.device import settle
from kvparity_contracts.signatures import SIGNATURES

if TYPE_CHECKING:
    from kvparity.relations.order.tree import SumTree
    from kvparity.subjects.pair.subject import AttentionSubject

_DTYPES = ("float32", "float16", "bfloat16")
_EXIT = {
    "consistent": ExitCode.HOLDS,
    "different-order": ExitCode.DIFFERS,
    "undeclared-order": ExitCode.DIFFERS,
    "same-order-different-bits": ExitCode.DIFFERS,
    "not-a-tree": ExitCode.VOID,
}
_WORST = (
    "not-a-tree",
    "different-order",
    "undeclared-order",
    "same-order-different-bits",
    "consistent",
)


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "order",
        help="recover decode's reduction order and certify it against prefill",
        description="Recover in which order decode adds, at given numbers of keys, and certify "
        "that prefill's last row adds in the same: P V over the keys, the denominator, Q K over "
        "the head dimension, rescaling, division.",
        epilog="Exit codes: 0 consistent, 1 different-order, undeclared-order or "
        "same-order-different-bits, 2 bad input, 3 the pair failed, 5 not-a-tree. The options for "
        "heads, dtype and scale are for pairs; a contract says these itself.",
    )
    parser.add_argument(
        "pair",
        metavar="CONTRACT|PREFILL,DECODE",
        help="a contract with an attention subject, or two functions: module:prefill,module:decode",
    )
    parser.add_argument(
        "--keys", default="65,257", metavar="N,…", help="numbers of keys (default: 65,257)"
    )
    parser.add_argument("--heads", metavar="Q,KV", help="query and key heads (default: 4,1)")
    parser.add_argument("--dim", type=int, metavar="D", help="head dimension (default: 64)")
    parser.add_argument("--dtype", choices=_DTYPES, help="of q, k, v and out (default: float32)")
    parser.add_argument(
        "--signature",
        choices=[name for name, calls in SIGNATURES.items() if not calls.writes],
        help="whose functions a pair's are like; a contract has the others",
    )
    parser.add_argument("--scale", type=float, help="factor of the scores (default: dim ** -0.5)")
    parser.add_argument(
        "--as",
        dest="arch",
        metavar="ARCH",
        help="the tree that the tensor cores of sm_80, sm_89, sm_90 or sm_100 add, for this "
        "project's own kernels: compiled, modelled, not run",
    )
    parser.add_argument(
        "--batch", type=int, metavar="B", help="sequences in each call (default: 1)"
    )
    parser.add_argument(
        "--rows",
        type=int,
        metavar="R",
        help="query rows of each prefill call (default: all, a whole prompt)",
    )
    parser.add_argument(
        "--draws", type=int, metavar="C", help="random calls to compare (default: 8)"
    )
    parser.add_argument("--seed", type=int, metavar="S", help="of the random calls (default: 0)")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the trees into FILE")
    add_json(parser)
    add_device(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Examine; returns the exit code."""
    from kvparity.core import doing
    from kvparity.core.environment import settle as settle_process

    with ends(ValueError):
        keys = _numbers("--keys", args.keys)
        if args.arch is not None:
            _none_of(args, "--as runs nothing", "batch", "rows", "draws", "seed", "scale", "device")
        device = settle("cpu" if args.arch is not None else args.device)
        settle_process()
        doing.task("loading the pair")
        subject = _subject(args, device)
    if args.arch is not None:
        return _model(args, subject, keys)
    return _examine(args, subject, keys, device)


def _none_of(args: argparse.Namespace, why: str, *names: str) -> None:
    given = [f"--{name}" for name in names if getattr(args, name) is not None]
    if given:
        raise ValueError(
            f"{', '.join(given)}: {why}; leave {'it' if len(given) == 1 else 'them'} out"
        )


def _model(args: argparse.Namespace, subject: AttentionSubject, keys: list[int]) -> int:
    """The trees of tensor cores; the exit code is that of an audit."""
    from kvparity.cli.audit import exit_code
    from kvparity.relations.audit.request import AuditError
    from kvparity.relations.order.modelled import modelled
    from kvparity.relations.order.modelled_subject import ask
    from kvparity.relations.order.modelled_text import render_modelled

    with ends(ValueError), ends(AuditError, code=ExitCode.ERROR, words="error: "):
        shape, order, window = ask(subject, keys)
        found = modelled(args.arch, shape, order, keys, window=window)
    if args.svg is not None:
        panels = [
            (f"{one.part}, {each.keys} keys, {side.label} on {each.arch}", one.tree)
            for each in found
            for side in each.sides
            for one in side.sums
        ]
        _write_svg(args.svg, panels)
    verdict = found[0].compiled.verdict
    document = {
        "schema_version": 1,
        "verdict": verdict,
        "reports": [each.json() for each in found],
    }
    say.result(args, document, render_modelled(found))
    return exit_code(verdict)


def _examine(
    args: argparse.Namespace, subject: AttentionSubject, keys: list[int], device: str
) -> int:
    import torch

    from kvparity.core import doing
    from kvparity.core.environment import environment
    from kvparity.relations.order.examine import order_report
    from kvparity.relations.order.text import render
    from kvparity.run.worker import still_settled
    from kvparity_kernels import device_model

    reports = []
    with ends(ValueError):
        for n in keys:
            doing.task(f"order of {n} keys")
            reports.append(
                order_report(
                    subject,
                    n,
                    batch=1 if args.batch is None else args.batch,
                    rows=None if args.rows is None else min(args.rows, n),
                    draws=8 if args.draws is None else args.draws,
                    seed=args.seed or 0,
                    progress=_progress,
                )
            )
            still_settled(f"{n} keys")
    facts = environment(torch.device(device), device_model.in_force()).document()
    verdict = min((report.verdict for report in reports), key=_WORST.index)
    if args.svg is not None:
        panels = [
            (f"{part.name}, {report.keys} keys, {side}", tree)
            for report in reports
            for part in report.parts
            for side, tree in part.trees.items()
        ]
        _write_svg(args.svg, panels)
    document = {
        "schema_version": 1,
        "verdict": verdict,
        "environment": facts,
        "reports": [report.json() for report in reports],
    }
    say.result(args, document, render(reports, facts))
    return _EXIT[verdict]


def _subject(args: argparse.Namespace, device: str) -> AttentionSubject:
    """The subject of the contract, or a pair by name.

    Raises:
        ValueError: neither; the message says what was found.
        ContractError: the contract is not valid.
    """
    if "," in args.pair:
        return _pair(args, device)
    _none_of(args, "a contract says this itself", "heads", "dim", "dtype", "scale", "signature")
    return _from_contract(args.pair, device)


def _pair(args: argparse.Namespace, device: str) -> AttentionSubject:
    import torch

    from kvparity.subjects.pair.callables import load_callable
    from kvparity.subjects.pair.model import HeadCounts, Pair
    from kvparity.subjects.pair.signatures.table import adapted
    from kvparity.subjects.pair.subject import AttentionSubject

    names = [name.strip() for name in args.pair.split(",")]
    if len(names) != 2 or any(":" not in name for name in names):
        raise ValueError(f"{args.pair!r}: expected two functions, module:prefill,module:decode")
    heads = _numbers("--heads", args.heads or "4,1")
    dim = 64 if args.dim is None else args.dim
    if len(heads) != 2 or min(*heads, dim) < 1 or heads[0] % heads[1]:
        raise ValueError(
            f"heads {heads}, dim {dim}: expected query heads that are a multiple of key heads"
        )
    here = Path.cwd()
    dtype = getattr(torch, args.dtype or "float32")
    called = adapted(
        args.signature, load_callable(names[0], here), load_callable(names[1], here), 0
    )
    return AttentionSubject(
        pair=Pair(called.prefill, called.decode, *names),
        heads=HeadCounts(heads[0], heads[1], dim),
        scale=_scale(args.scale, dim),
        execution=dtype,
        kv_cache=dtype,
        device=torch.device(device),
        seed=args.seed or 0,
        signature=args.signature,
    )


def _scale(given: float | None, dim: int) -> float:
    if given is None:
        return float(dim**-0.5)
    if not 0 < given < math.inf:
        raise ValueError(f"--scale {given}: expected a number above 0")
    return given


def _from_contract(name: str, device: str) -> AttentionSubject:
    import torch

    from kvparity.run.device_switch import require_cpu
    from kvparity.subjects.pair.subject import build
    from kvparity_contracts.files import load_whole
    from kvparity_contracts.library import find
    from kvparity_contracts.subjects import Attention
    from kvparity_kernels import device_model

    loaded = load_whole(find(name))
    contract = loaded.contract
    if not isinstance(contract.subject, Attention):
        raise ValueError(
            f"{name}: its subject is a {contract.subject.kind}; an order can be recovered for kind "
            "attention only"
        )
    numerics = contract.numerics
    require_cpu(contract, device)
    device_model.use(numerics.device)
    execution = numerics.execution[0]
    return build(
        contract.subject,
        execution=execution,
        kv_cache=execution if numerics.kv_cache is None else numerics.kv_cache[0],
        device=torch.device(device),
        seed=contract.seed,
        base=loaded.base,
    )


def _numbers(name: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{name} {text!r}: expected whole numbers with commas between") from None


def _write_svg(path: Path, panels: list[tuple[str, SumTree]]) -> None:
    from kvparity.relations.order.picture import draw

    replaceable.write("--svg", path, draw(panels))


def _progress(what: str) -> None:
    progress.line(what)
    if what.endswith("random data"):
        progress.line("")
