"""What an exported program holds beside its weights, and which of its inputs it does not use.

A tracer keeps every tensor and every number that is not declared an input. A key, a position or
a length that became part of the program gives the right answer for the traced call and a wrong one
for all others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, TensorArgument

from kvparity.core.errors import SubjectError
from kvparity.subjects.export.flow import dependences


@dataclass(frozen=True)
class TracedValue:
    """One thing in a program that came from the traced call: its node and what is wrong."""

    node: str
    what: str


_Digest = tuple[str, tuple[int, ...], str]
"""dtype, shape, SHA-256 of the bytes."""


def _digest(x: Tensor) -> _Digest:
    raw = x.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy()
    return str(x.dtype), tuple(x.shape), hashlib.sha256(raw.data).hexdigest()


class _Declared:
    """Weights and tables: by memory, else by content."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors = list(tensors)
        self.places = {(x.data_ptr(), tuple(x.shape), x.dtype) for x in self.tensors}
        self.digests: set[_Digest] | None = None

    def __contains__(self, x: Tensor) -> bool:
        if (x.data_ptr(), tuple(x.shape), x.dtype) in self.places:
            return True
        if self.digests is None:
            self.digests = {_digest(tensor) for tensor in self.tensors}
        return _digest(x) in self.digests


def _stored(program: ExportedProgram) -> Iterator[tuple[str, object]]:
    """(node, value) of everything that the program holds."""
    for spec in program.graph_signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            target = str(spec.target)
            kept = program.state_dict.get(target)
            yield spec.arg.name, program.constants.get(target) if kept is None else kept
        elif spec.kind in (InputKind.CONSTANT_TENSOR, InputKind.CUSTOM_OBJ):
            yield spec.arg.name, program.constants.get(str(spec.target))
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            if node.op == "get_attr":
                value: object = module
                for part in str(node.target).split("."):
                    value = getattr(value, part)
                if not isinstance(value, torch.nn.Module):
                    yield node.name, value


def baked(
    program: ExportedProgram, declared: Iterable[Tensor], *, fed: Iterable[str] = ()
) -> list[TracedValue]:
    """What of the traced call was kept in ``program``; nothing, if all that varies is an input.

    ``declared``: weights and tables, recognised by memory or by content. ``fed``: the targets of
    buffers that stand for inputs, such as the cache of a module: their content is the caller's.
    Found are tensors that are no weight, whatever their size (a number can be a position); inputs
    whose value was fixed; and inputs that the results do not depend on.
    """
    known, own = _Declared(declared), set(fed)
    signature = program.graph_signature
    found = []
    targets = {spec.arg.name: spec.target for spec in signature.input_specs}
    for name, value in _stored(program):
        if targets.get(name) in own:
            continue
        if not isinstance(value, Tensor):
            found.append(TracedValue(name, f"holds a {type(value).__name__}, which is no weight"))
        elif value not in known:
            found.append(
                TracedValue(name, f"holds {_words(value)}, which is none of the model's weights")
            )
    used = dependences(program.graph)
    for spec in signature.input_specs:
        given = spec.kind is InputKind.USER_INPUT or targets.get(spec.arg.name) in own
        if not given:
            continue
        if isinstance(spec.arg, ConstantArgument):
            if spec.arg.value is not None:
                what = f"is an input that tracing fixed to {spec.arg.value!r}"
                found.append(TracedValue(spec.arg.name, what))
        elif isinstance(spec.arg, TensorArgument) and spec.arg.name not in used:
            what = "is an input that no result depends on: its value was fixed by tracing"
            found.append(TracedValue(spec.arg.name, what))
    return found


def _words(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}"


def require_clean(findings: Iterable[TracedValue], what: str) -> None:
    """Raise ``SubjectError`` naming the first finding, if there is one."""
    found = list(findings)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise SubjectError(
            f"the traced {what} is not a function of its inputs: {found[0].node} "
            f"{found[0].what}{more}; expected weights inside and all else given"
        )
