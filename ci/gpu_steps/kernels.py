"""The kernels that the steps launch: the one list of what ci/gpu compiles.

It is made by the audit's capture. What a step calls is called on tensors without data, so the list
follows contracts, shapes and tiles by itself; only lengths are cut, which decide no kernel. What a
planted defect launches beside that is compiled when it is launched. Steps that launch none of the
list are ``ELSEWHERE``, with the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from gpu_steps.steps import OWN, ROOT, Step
from kvparity.labs.bench import cases, ways
from kvparity.labs.bench.calls import is_ours
from kvparity.record.path_run import PathRun, Setting
from kvparity.relations.audit.capture import Launch, captured
from kvparity.relations.audit.contract import subject_shapes
from kvparity.relations.audit.request import Request, Shape
from kvparity.relations.audit.worker import launches
from kvparity.subjects.decoder.backends import Backends
from kvparity.subjects.decoder.backends.table import FIXED
from kvparity.subjects.decoder.config import DecoderShape, from_contract
from kvparity.subjects.decoder.presets import preset
from kvparity.subjects.decoder.seeded import seeded, with_scales
from kvparity.subjects.decoder.storage import store_format
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity_contracts import Contract, PathName, find, load
from kvparity_contracts.served import ServerSubject
from kvparity_contracts.sides import Sides
from kvparity_contracts.subjects import OWN_KERNELS, Attention, Decoder, Transformers
from kvparity_contracts.workloads import Workload
from kvparity_kernels import rules
from kvparity_kernels.digest import row_digest
from kvparity_kernels.logprob import logprob
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.tiles import Tiles, using

OURS = "attention."
META = torch.device("meta")
PROMPT, GENERATED = 40, 2  # tokens of a sequence
TRACED = ("exported", "compiled")
WIDE = 512  # a hidden size from which on one layer stands for all
HEADS = ("num_attention_heads", "num_key_value_heads", "head_dim")

ELSEWHERE = {
    "doctor": "its subjects are tiny, and compile in seconds when they are tried",
    "compile": "it compiles this list",
    "products": "one kernel of its own in six forms, which compile in seconds",
    "tiles": "it compiles, in processes of its own, what no other step launches",
    **dict.fromkeys(
        ("audit-attention", "audit-decoder", "audit-block-m"),
        "an audit launches nothing, and keeps what it compiles in a cache of its own",
    ),
    "order-flashinfer": "FlashInfer's own kernels",
    **{
        f"order-sdpa-{name}": "PyTorch's own kernels"
        for name in (
            "flash-bfloat16", "efficient-bfloat16", "math-bfloat16", "cudnn-bfloat16",
            "efficient-float32",
        )
    },
}  # fmt: skip
"""Steps that launch nothing of the list."""


def of_step(step: Step, arch: str) -> list[Launch]:
    """What a step launches on an architecture, each form once."""
    found = {launch.form: launch for launch in _of_command(step.command, arch)}
    return list(found.values())


def _of_command(command: Sequence[str], arch: str) -> Iterator[Launch]:
    verb = command[3] if command[2] == "kvparity" else command[2]
    if verb == "verify":
        file = ROOT / command[4] if "/" in command[4] else find(command[4])
        yield from of_contract(load(file).contract, file.parent, arch)
    elif verb == "order" and command[4] == OWN:
        given = dict(pairwise(command))
        heads = [int(n) for n in given["--heads"].split(",")]
        dtype = given["--dtype"]
        shape = Shape(heads[0], heads[1], int(given["--dim"]), dtype, dtype)
        yield from _sides(shape, ReductionOrder(), arch)
    elif verb == "bench":
        yield from _of_bench(arch)
    elif verb in ("pytest", "gpu_steps.sanitize"):
        yield from _of_device_tests(arch)


def of_contract(contract: Contract, base: Path, arch: str) -> Iterator[Launch]:
    """What every path of a contract launches. ``base``: the folder of its checkpoint."""
    subject = contract.subject
    for execution, store in contract.numerics.formats():
        dtype = getattr(torch, execution)
        with captured() as seen, using(_tiles(arch, execution)):
            if isinstance(subject, Decoder):
                _run(contract, _decoder(subject, dtype, store))
            elif not isinstance(subject, (ServerSubject, Sides)):  # whose kernels run elsewhere
                _score(subject, dtype)
        others = isinstance(subject, Decoder) and subject.attention != FIXED
        yield from (each for each in seen if not (others and each.kernel.name.startswith(OURS)))
    if isinstance(subject, Attention):
        for request in _of_pair(contract, subject, base, arch):
            yield from launches(request)
    elif isinstance(subject, Transformers) and subject.attention == "kvparity":
        heads, kv_heads, dim = (_size(subject, name) for name in HEADS)
        for execution, store in contract.numerics.formats():
            shape = Shape(heads, kv_heads, dim, execution, store)
            yield from _sides(shape, _order(subject), arch)


def _of_pair(contract: Contract, pair: Attention, base: Path, arch: str) -> Iterator[Request]:
    if (pair.prefill, pair.decode) == OWN_KERNELS:
        order, shapes = subject_shapes(contract, base)
        for shape in dict.fromkeys(each for both in shapes for each in both):
            yield Request("prefill", arch, shape, order)
            yield Request("decode", arch, shape, order)
    elif ".py:" in pair.decode:  # docs/results/device/pairs.py
        for execution, store in contract.numerics.formats():
            shape = Shape(pair.heads.query, pair.heads.kv, pair.heads.dim, execution, store)
            yield Request("prefill", arch, shape, ReductionOrder(block_m=64))
            yield Request("decode", arch, shape, ReductionOrder(block_m=16))


def _order(subject: Decoder | Transformers) -> ReductionOrder:
    given = subject.order
    return ReductionOrder() if given is None else ReductionOrder(**given.model_dump())


def _size(model: Transformers, name: str) -> int:
    return int(str(dict(model.config or {})[name]))


def _sides(shape: Shape, order: ReductionOrder, arch: str) -> Iterator[Launch]:
    yield from launches(Request("prefill", arch, shape, order))
    yield from launches(Request("decode", arch, shape, order))


def _tiles(arch: str, dtype: str) -> Tiles:
    return rules.in_force(arch, rules.triton_version(), dtype)


def _decoder(model: Decoder, dtype: torch.dtype, store: str) -> DecoderSubject:
    """A decoder without weights, of one layer where it is large."""
    config: DecoderShape
    if model.config is not None:
        config = from_contract(model.config)
    else:
        assert model.preset is not None, "a step with a checkpoint needs a list of its own"
        config = preset(model.preset)
    if config.hidden >= WIDE:
        config = replace(config, layers=1)
    weights = with_scales(config, seeded(config, 0, dtype, META), store_format(store), 0)
    return DecoderSubject(
        config,
        weights,
        kv_cache=store,
        heads_first=model.cache.layout == "head-slot",
        ring=model.cache.ring,
        order=_order(model),
        backends=Backends(FIXED, model.operations),  # attention of others reads lengths
    )


def _run(contract: Contract, subject: DecoderSubject) -> None:
    """Every path once, in short; traced programs launch what eager steps launch."""
    workloads = tuple(_short(each) for each in contract.workloads)
    setting = Setting(contract.model_copy(update={"workloads": workloads}), subject)
    paths = {
        PathName("decode") if path.kind in TRACED else path: workload.name
        for check in contract.path_checks
        for workload in contract.workloads_of(check)
        for path in contract.paths_of(check, workload)
    }
    for path, workload in paths.items():
        plans = setting.plans(workload)
        prompts = plans.prompts
        tokens = [[*ids, *[0] * prompts.generate] for ids in prompts.prompts]
        PathRun(setting, subject, plans, path, tokens).run()


def _short(workload: Workload) -> Workload:
    sizes: dict[str, object] = {"generate": GENERATED}
    if workload.prompt_tokens is not None:
        sizes["prompt_tokens"] = tuple(min(n, PROMPT) for n in workload.prompt_tokens)
    return workload.model_copy(update=sizes)


def _score(subject: Attention | Transformers, dtype: torch.dtype) -> None:
    """What is kept of a row: its digest, and the logprob of a token."""
    if isinstance(subject, Attention):
        row_digest(_rows(subject.heads.query * (subject.heads.dim + 1), torch.float32), twin=False)
        return
    logits = _rows(_size(subject, "vocab_size"), dtype)
    row_digest(logits, twin=False)
    logprob(logits, torch.zeros(len(logits), dtype=torch.int64, device=META), 1.0)


def _rows(width: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(2, width, dtype=dtype, device=META)


def _of_bench(arch: str) -> Iterator[Launch]:
    """Every way of ours at every size that decides a tile, over few keys, and one layer."""
    shape = replace(cases.SHAPES["qwen3-8b"], layers=1)
    some = [
        cases.decode(shape, 2, 4096),
        cases.prefill(shape, 64, 64, "prefill"),
        *cases.cases(shape, ("linear", "logprob")),
        *(cases.step(shape, *sizes) for sizes in ((1, 1, 64), (2, 1, 64), (1, 64, 64))),
    ]
    with captured() as seen, using(_tiles(arch, shape.dtype)):
        for case in some:
            for name, call in ways.calls(case, shape, str(META)).items():
                if is_ours(name):
                    call()
    yield from seen


def _of_device_tests(arch: str) -> Iterator[Launch]:
    """The helpers of the device tests, which the sanitizer runs, too."""
    sys.path.insert(0, str(ROOT / "tests" / "gpu"))
    import device_cases as device  # type: ignore[import-not-found] # a plain module there

    forms = (*device.FORMS, *((device.Shape(), dtype) for dtype in device.DTYPES))
    for shape, dtype in forms:
        name = str(dtype).removeprefix("torch.")
        for page in (0, 16):
            one = Shape(shape.heads, shape.kv_heads, shape.dim, name, name, page)
            yield from _sides(one, device.ORDER, arch)
    for dtype in device.DTYPES:
        with captured() as seen, using(_tiles(arch, str(dtype).removeprefix("torch."))):
            rows = torch.zeros(5, dtype=torch.int64, device=META)
            for operation in device.operations(dtype, str(META)).values():
                operation(rows)
        yield from seen
