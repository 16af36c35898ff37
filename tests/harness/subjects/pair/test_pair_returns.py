"""One call of a kernel that is wrong in one place, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pair_returns import DIM, HEADS, ROWS, call, call_kernel, inputs
from torch import Tensor

from kvparity.subjects.attention_calls import StoredKV
from kvparity.subjects.base import SubjectError, UnsupportedError
from kvparity.subjects.pair.inputs import Inputs

OUT = torch.arange(ROWS * HEADS * DIM, dtype=torch.bfloat16).view(ROWS, HEADS, DIM)
LSE = torch.arange(ROWS * HEADS, dtype=torch.float32).view(ROWS, HEADS) - 7


class Odd(Tensor):
    """A tensor that could compare itself."""


RETURNED: dict[str, tuple[Any, str]] = {
    "nothing": (None, r"out is a NoneType, expected a tensor, or the tuple \(out, lse\)$"),
    "a list": ([OUT, LSE], r"out is a list, expected a tensor, or the tuple \(out, lse\)$"),
    "one of a tuple": ((OUT,), r"returned 1 values, expected out, or \(out, lse\)$"),
    "three": ((OUT, LSE, LSE), r"returned 3 values, expected out, or \(out, lse\)$"),
    "out of its own kind": (OUT.as_subclass(Odd), "out is a Odd, a tensor with functions of its"),
    "sparse out": (OUT.to_sparse(), "out has layout torch.sparse_coo, expected a plain tensor"),
    "out without a row": (OUT[:2], r"out has shape \[2, 2, 4\], expected \[3, 2, 4\]$"),
    "out turned": (OUT.transpose(0, 2), r"out has shape \[4, 2, 3\], expected \[3, 2, 4\]$"),
    "out in float32": (OUT.float(), "out has dtype torch.float32, expected torch.bfloat16$"),
    "out elsewhere": (OUT.to("meta"), "out is on meta, expected cpu$"),
    "no number as lse": ((OUT, 3.0), "lse is a float, expected a tensor$"),
    "lse of its own kind": ((OUT, LSE.as_subclass(Odd)), "lse is a Odd, a tensor with functions"),
    "sparse lse": ((OUT, LSE.to_sparse()), "lse has layout torch.sparse_coo"),
    "lse turned": ((OUT, LSE.T), r"lse has shape \[2, 3\], expected \[3, 2\]; transposed: return"),
    "lse of rows": ((OUT, LSE[:, 0]), r"lse has shape \[3\], expected \[3, 2\]$"),
    "lse in float64": ((OUT, LSE.double()), "lse has dtype torch.float64, expected torch.float32$"),
    "lse elsewhere": ((OUT, LSE.to("meta")), "lse is on meta, expected cpu$"),
}


@pytest.mark.parametrize("name", RETURNED)
def test_one_wrong_thing_that_is_returned_is_told(name: str) -> None:
    returned, says = RETURNED[name]
    with pytest.raises(SubjectError, match=f"f.py:decode:? {says}"):
        call(lambda: returned)


@pytest.mark.parametrize("lse", [None, LSE], ids=["alone", "with lse"])
def test_what_is_right_is_copied(lse: Tensor | None) -> None:
    buffer = OUT.clone()
    for returned in (buffer, torch.nn.Parameter(buffer, requires_grad=False)):
        found = call(lambda out=returned: out if lse is None else (out, lse))
        buffer += 1  # the next replay of a captured graph
        wanted = OUT.float().flatten(1)
        assert torch.equal(found, wanted if lse is None else torch.cat([wanted, LSE], 1))
        assert found.dtype == torch.float32
        buffer -= 1


def raising(error: BaseException) -> Callable[[], Any]:
    def inside() -> None:
        raise error

    def compute() -> Any:
        inside()

    return compute


WHERE = r" \(in inside, [^()]*\)$"
MEMORY = (torch.zeros(9),)
VIEWS, EMPTY = "views of fused tensors; a pair that takes none says inputs: contiguous", "empty: ne"


@pytest.mark.parametrize(
    ("given", "error", "says", "not_said"),
    [
        ({}, IndexError("no"), rf"raised IndexError: no{WHERE}", "it was given"),
        ({"memory": MEMORY}, ValueError("no"), VIEWS, EMPTY),
        ({"memory": MEMORY}, NameError("no"), rf"raised NameError: no{WHERE}", "inputs:"),
        ({"empties": True}, ValueError("no"), EMPTY, "inputs:"),
        ({"empties": True}, TypeError("no"), EMPTY, "is called with"),
        ({"empties": True, "memory": MEMORY}, SystemExit(2), f"{EMPTY}.*; and {VIEWS}", "called"),
    ],
)
def test_hints_are_of_what_the_call_was_given(
    given: dict[str, Any], error: BaseException, says: str, not_said: str
) -> None:
    with pytest.raises(SubjectError, match=says) as found:
        call(raising(error), inputs(**given))
    assert not_said not in str(found.value)


def test_a_signature_that_does_not_fit_is_told_what_it_is_called_with() -> None:
    def kernel(*, lens: Tensor) -> Any: ...

    with pytest.raises(
        SubjectError,
        match=r"\(it is called with q, k, v, kv_lens=, scale=; subject.signature calls it .*\)$",
    ):
        call_kernel(kernel)
    with pytest.raises(SubjectError) as found:
        call(raising(TypeError("of its own")))
    assert "is called with" not in str(found.value)


def test_some_errors_are_not_the_kernels() -> None:
    for error in (KeyboardInterrupt(), UnsupportedError("planted")):
        with pytest.raises(type(error)):
            call(raising(error))
    with pytest.raises(SubjectError, match=r"f.py:decode: out of device memory: 9 GiB"):
        call(raising(torch.cuda.OutOfMemoryError("9 GiB")))


@pytest.mark.parametrize("twin", [False, True])
@pytest.mark.parametrize("name", ["q", "k", "v", "k_scale"])
def test_a_write_is_told_with_and_without_a_twin(name: str, twin: bool) -> None:
    given = inputs(twin=inputs().given if twin else None)
    tensors = {"q": given.q, **given.given.tensors()}

    def compute() -> Tensor:
        tensors[name].view(-1)[-1] = torch.nan
        return OUT

    with pytest.raises(SubjectError, match=f"^f.py:decode wrote to its input {name}$"):
        call(compute, given)
    for x in tensors.values():  # NaN that was there before is no write
        x.fill_(torch.nan)
    if twin:
        codes = StoredKV(given.given.k.clone(), given.given.v.clone())
        given = Inputs(given.q, given.given, twin=codes)
    call(lambda: OUT, given)


def test_a_write_beside_any_of_the_memories_is_told() -> None:
    for which in (0, 1):
        memory = (torch.full((4,), torch.nan), torch.full((4,), torch.nan))

        def compute(place: Tensor = memory[which]) -> Tensor:
            place[3] = 0.0
            return OUT

        with pytest.raises(SubjectError, match="wrote outside its inputs, which are views of one"):
            call(compute, inputs(memory=memory))
        call(lambda: OUT, inputs(memory=memory))
