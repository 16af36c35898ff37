"""One call of a kernel of a pair: what may not change is kept, what comes back is checked.

A kernel may return a view of a buffer of its own, as an engine's captured graph does: what it
returned is copied before anything else is called. Inputs are compared bit for bit with a copy, or
with the twin of the cache: a sum of them would miss two writes that make up for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from traceback import walk_tb

import torch
from torch import Tensor

from kvparity.core import doing
from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.core.plain_tensor import plain
from kvparity.subjects.attention_calls import PairCall, ask
from kvparity.subjects.pair.inputs import Inputs
from kvparity_kernels.stream import emit


def checked(
    name: str, kernel: Callable[[PairCall], object], call: PairCall, inputs: Inputs, width: int = 0
) -> Tensor:
    """Rows of one call of the kernel ``name``, a copy: float32 ``[n, Hq * Dv (+ Hq)]``.

    ``width``: Dv (0: as wide as q). ``inputs``: the memory in which q, k and v of the call lie. The
    call is an event of the stream.

    Raises:
        SubjectError: it raised, returned another shape, dtype or device, or wrote to an input or
            beside it.
    """
    q = call.q
    same = inputs.twin.tensors() if inputs.twin else {}  # no copy of a long cache at every step
    kept = [
        (label, bits(x), bits(x).clone() if (other := same.get(label)) is None else bits(other))
        for label, x in call.tensors().items()
    ]
    beside = [bits(whole).clone() for whole in inputs.memory]
    emit(call)
    try:
        with doing.calling(name):
            result = kernel(call)
    except UnsupportedError:  # of a planted defect, not of the kernel
        raise
    except torch.cuda.OutOfMemoryError as error:
        raise SubjectError(f"{name}: out of device memory: {error}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise SubjectError.of(name, error, _hint(inputs, error)) from error
    for label, now, before in kept:
        if not torch.equal(now, before):
            raise SubjectError(f"{name} wrote to its input {label}")
    for whole, before in zip(inputs.memory, beside, strict=True):
        if not torch.equal(bits(whole), before):
            raise SubjectError(f"{name} wrote outside its inputs, which are views of one tensor")
    out, lse = _parts(name, result)
    rows = _expect(name, "out", out, (len(q), q.shape[1], width or q.shape[2]), q.dtype, q.device)
    rows = rows.to(torch.float32, copy=True).flatten(1)
    if lse is None:
        return rows
    return torch.cat([rows, _expect(name, "lse", lse, q.shape[:2], torch.float32, q.device)], dim=1)


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


ON_ANY_CALL = (TypeError, AttributeError, NameError, ImportError)
"""Mistakes of a function's own text, which no layout of its inputs brings about."""


def _hint(inputs: Inputs, error: BaseException) -> str:
    """What of the call a kernel may not be made for, and how a contract says so."""
    *_, (last, _) = walk_tb(error.__traceback__)
    if isinstance(error, TypeError) and last.f_code is ask.__code__:
        count = len(last.f_locals["given"])
        first = "q, k, v" if count == 3 else f"{count} by position"
        names = (first, *(f"{each}=" for each in last.f_locals["keywords"]))
        other = "; subject.signature calls it as another project does, such as flash-attn"
        own = "unexpected keyword argument" in str(error) and "scale" in last.f_locals["keywords"]
        return f" (it is called with {', '.join(names)}{other if own else ''})"
    hints = []
    if inputs.empties:
        hints.append(
            "sequences without a token, as engines pad a batch: with kv_lens 0, out is 0 and lse "
            "-inf; a pair that is never given one says empty: never"
        )
    if inputs.memory and not isinstance(error, ON_ANY_CALL):
        hints.append("views of fused tensors; a pair that takes none says inputs: contiguous")
    return f" (it was given {'; and '.join(hints)})" if hints else ""


def bits(tensor: Tensor) -> Tensor:
    """The same memory as integers: a NaN is equal to itself there."""
    return tensor.view(_INTEGERS[tensor.element_size()])


def _parts(name: str, result: object) -> tuple[object, object]:
    """Out and LSE (None: none) of what a kernel returned."""
    if not isinstance(result, tuple):
        return result, None
    if len(result) != 2:
        raise SubjectError(f"{name} returned {len(result)} values, expected out, or (out, lse)")
    return result[0], result[1]


def _expect(
    name: str,
    what: str,
    got: object,
    shape: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """``got``, once it is a plain tensor of the expected shape, dtype and device."""
    if not isinstance(got, Tensor):
        alone = ", or the tuple (out, lse)" if what == "out" else ""
        raise SubjectError(f"{name}: {what} is a {type(got).__name__}, expected a tensor{alone}")
    if not plain(got):
        raise SubjectError(
            f"{name}: {what} is a {type(got).__name__}, a tensor with functions of its own, which "
            "could compare itself; expected a plain torch.Tensor"
        )
    if got.layout != torch.strided:
        raise SubjectError(f"{name}: {what} has layout {got.layout}, expected a plain tensor")
    if tuple(got.shape) != tuple(shape):
        turned = what == "lse" and tuple(got.shape) == tuple(reversed(shape))
        advice = "; transposed: return lse.transpose(0, 1)" if turned else ""
        raise SubjectError(
            f"{name}: {what} has shape {list(got.shape)}, expected {list(shape)}{advice}"
        )
    if got.dtype != dtype:
        raise SubjectError(f"{name}: {what} has dtype {got.dtype}, expected {dtype}")
    if got.device != device:
        raise SubjectError(f"{name}: {what} is on {got.device}, expected {device}")
    return got
