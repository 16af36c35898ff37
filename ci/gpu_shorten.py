"""What a rehearsal leaves out of a command because it decides no kernel: sizes, probes, timing."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from gpu_recording import LAUNCH, note

GENERATED, PROMPT = 2, 40  # tokens of a sequence, at most

TRACED = ("exported", "compiled")


def traced(name: str) -> bool:
    """Whether a contract has programs that torch traces."""
    from kvparity_contracts import find, load

    checks = load(find(name)).contract.checks
    paths = [path for check in checks for path in getattr(check, "paths", ())]
    return any(path.kind in TRACED for path in paths)


@contextmanager
def eager() -> Iterator[None]:
    """The same contracts with decode in the place of traced paths."""
    from kvparity.run import verify as run_verify
    from kvparity_contracts import PathName

    real = run_verify.verify

    def plain(check: Any) -> Any:
        if not getattr(check, "paths", ()):
            return check
        paths = [PathName("decode") if p.kind in TRACED else p for p in check.paths]
        return check.model_copy(update={"paths": tuple(dict.fromkeys(paths))})

    def verify(loaded: Any, **more: Any) -> Any:
        checks = tuple(map(plain, loaded.contract.checks))
        contract = loaded.contract.model_copy(update={"checks": checks})
        return real(dataclasses.replace(loaded, contract=contract), **more)

    with mock.patch.object(run_verify, "verify", verify):
        yield


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """Compiled kernels for tensors of the CPU, which are noted and not launched."""
    from kvparity.record import scoring
    from kvparity_kernels import runtime

    digest = partial(scoring.row_digest)

    def row_digest(rows: Any, **_: Any) -> Any:
        return digest(rows, twin=False)

    with (
        mock.patch.object(runtime, "select", return_value=None),
        mock.patch.object(scoring, "row_digest", row_digest),
    ):
        yield


class _Computed(ast.NodeTransformer):
    def visit_Assert(self, node: ast.Assert) -> ast.Expr:
        return ast.copy_location(ast.Expr(node.test), node)


@contextmanager
def without_asserts() -> Iterator[None]:
    """Test files whose assertions are computed and never fail, so that all of a test runs.

    A process that a test starts launches what the test launched itself; here it says nothing.
    """
    real = SourceFileLoader.get_code

    def get_code(loader: Any, name: str) -> Any:
        path = Path(loader.path)
        if path.parent.name != "gpu":
            return real(loader, name)
        tree = ast.fix_missing_locations(_Computed().visit(ast.parse(path.read_bytes())))
        return compile(tree, str(path), "exec", dont_inherit=True)

    nothing = subprocess.CompletedProcess([], 0, "{}", "")
    with (
        mock.patch.object(SourceFileLoader, "get_code", get_code),
        mock.patch.object(subprocess, "run", return_value=nothing),
    ):
        yield


@contextmanager
def small_bench() -> Iterator[None]:
    """Every way of ours at every size that decides a tile, over few keys."""
    from kvparity.labs.bench import calls, cases, measure, timing

    def measured(case: Any, make: Any, clock: Any, **_: Any) -> Any:
        for name, call in make().items():
            # Others with kernels of ours launch parts of what ours does.
            if name == calls.OURS or name.startswith((f"{calls.OURS} [", measure.SPLIT)):
                call()
                with torch.cuda.graph(torch.cuda.CUDAGraph()):
                    call()  # waits for no number of the device
        return measure.Measured(case, {}, {}, "not measured")

    def drawn(shape: Any, device: str, *sizes: int) -> torch.Tensor:
        return torch.zeros(*sizes, dtype=getattr(torch, shape.dtype), device=device)

    def copied(clock: Any) -> Any:
        time = timing.Time(1.0, 1.0, 1.0, clock.run)
        return {"bytes": 1, **time.json(), "gb_per_s": 1.0}

    def one_layer(shape: Any, *_: Any) -> Any:
        return dataclasses.replace(shape, layers=1)

    with ExitStack() as stack:
        for name, new in (
            ("fitting", one_layer),
            ("DECODE", ((1, 4096), (2, 1024))),
            ("PREFILL", (64,)),
            ("CHUNKED", ((32, 64),)),
            ("STEPS", ((1, 1, 64), (2, 1, 64), (1, 64, 64))),
        ):
            stack.enter_context(mock.patch.object(cases, name, new))
        stack.enter_context(mock.patch.object(calls, "drawn", drawn))
        stack.enter_context(mock.patch.object(timing, "copy_bandwidth", copied))
        stack.enter_context(mock.patch.object(measure, "measure", measured))
        yield


@contextmanager
def short_workloads() -> Iterator[None]:
    """Contracts with fewer tokens: lengths decide no kernel. On a CPU, nothing is a twin."""
    from kvparity.run import verify as run_verify

    real = run_verify.verify

    def verify(loaded: Any, **more: Any) -> Any:
        contract = loaded.contract
        short = tuple(shorter(workload) for workload in contract.workloads)
        subject = contract.subject
        if hasattr(subject, "cpu_ops"):
            subject = subject.model_copy(update={"cpu_ops": "interpreter"})
        changed = contract.model_copy(update={"workloads": short, "subject": subject})
        return real(dataclasses.replace(loaded, contract=changed), **more)

    with mock.patch.object(run_verify, "verify", verify):
        yield


def shorter(workload: Any) -> Any:
    """The workload with at most so many tokens in each sequence."""
    sizes = {"generate": min(workload.generate, GENERATED)}
    if workload.prompt_tokens is not None:
        sizes["prompt_tokens"] = tuple(min(n, PROMPT) for n in workload.prompt_tokens)
    return workload.model_copy(update=sizes)


@contextmanager
def one_probe() -> Iterator[None]:
    """Both sides of a pair called once with random data: all probes are calls of one form."""
    from kvparity.relations.order import examine

    def report(subject: Any, keys: int, **more: Any) -> Any:
        return real(subject, keys, **more | {"only": (), "draws": 1})

    real = examine.order_report
    with mock.patch.object(examine, "order_report", report):
        yield


@contextmanager
def no_audit() -> Iterator[None]:
    """What an audit compiles is noted, and then there is nothing to compare."""
    from kvparity.relations.audit import compile as compiling
    from kvparity.relations.audit import side, worker
    from kvparity_kernels import launch
    from kvparity_kernels.attention import kernels

    def stop(requests: Sequence[Any], **_: Any) -> Any:
        for request in requests:
            with mock.patch.object(launch, "launch", LAUNCH):
                launches = worker.launches(request)
            for kernel, arguments in launches:
                note(getattr(kernels, kernel.name.rpartition(".")[2]), arguments)
        raise compiling.AuditError("rehearsed")

    with mock.patch.object(side, "compile_all", stop):
        yield


@contextmanager
def no_models() -> Iterator[None]:
    """Tried on the real device alone: transformers asks torch for the one that is only pretended.

    The decoder's kernels are those of ``verify smoke``.
    """
    from kvparity.run import trials

    left_out = ("transformers", "decoder")
    others = {name: trial for name, trial in trials.TRIALS.items() if name not in left_out}
    with mock.patch.object(trials, "TRIALS", others):
        yield


SHORTEN: dict[str, tuple[Callable[[], Any], ...]] = {
    "bench": (small_bench,),
    "verify": (short_workloads, one_probe),
    "order": (one_probe,),
    "audit": (no_audit,),
    "doctor": (no_models,),
}
