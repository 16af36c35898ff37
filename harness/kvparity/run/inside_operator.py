"""Inside an operation of torch's operators: the first that parts, and how a product adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kvparity.births.digests import Place
from kvparity.births.entered import Call, call_of, first_operator, row_of
from kvparity.core.bits import differing
from kvparity.record.path_run import PathRun
from kvparity.relations.order.difference import first_difference
from kvparity.relations.order.errors import NotATree, NotMeasured, ProbeLied
from kvparity.relations.order.matrix_order import Added, MatrixCall, added

_TRANSPOSED = {"linear": True, "matmul": False, "bmm": False, "mm": False}
"""Products of two matrices, and whether the second is given as ``[N, K]``."""


def operator_words(
    sides: tuple[PathRun, PathRun], operation: str, place: Place, names: tuple[str, str]
) -> str:
    """What can be told of an operation of a token whose inputs are equal on both sides."""
    one, two = (call_of(side, operation, place) for side in sides)
    if one is None or two is None or not one.operators:
        return "a black box with equal inputs: it reports no operators of torch"
    found = first_operator(one, two)
    if found is None:
        return "a black box with equal inputs: its two sides ran different operators"
    number = found.number - 1
    words = found.words() if found.of > 1 else ""
    if found.name not in _TRANSPOSED:
        return words or f"a black box with equal inputs: {found.name} is one operator of torch"
    words = words or f"{found.name} of {found.elements} columns"
    orders = _orders((one, two), number)
    if isinstance(orders, str):
        return f"{words}; its order of addition cannot be determined: {orders}"
    first, second = orders
    told = f"{names[0]} adds {first.tree.n} products as {first.words()}, {names[1]} "
    same = first.tree.n == second.tree.n
    more = "" if same else f"{second.tree.n} "
    told += f"{more}as {second.words()}"
    parts = first_difference(first.tree, second.tree, names=names) if same else ""
    return "; ".join(filter(None, (words, told, parts)))


def _orders(calls: tuple[Call, Call], number: int) -> tuple[Added, Added] | str:
    """How both sides add, or why it cannot be told."""
    one, two = calls
    products = _matrix(one, two, number), _matrix(two, one, number)
    if products[0] is None or products[1] is None:
        return "which rows it was given is not known"
    left = products[0].left, products[1].left
    if left[0].shape == left[1].shape and bool(differing(*left).any()):
        return "it was given different rows"
    try:
        first, second = map(added, filter(None, products))
    except (NotATree, ProbeLied, NotMeasured) as error:
        return str(error)
    if first is None or second is None:
        return "no replay gives the bits of both sides"
    return first, second


def _matrix(call: Call, there: Call, number: int) -> MatrixCall | None:
    """The call of an operator as its row; None: which row of the left side it is is unclear."""
    operator, other = call.operators[number], there.operators[number]
    left, right, *rest = operator.given
    theirs = other.given[0]
    if not (isinstance(left, Tensor) and isinstance(right, Tensor) and isinstance(theirs, Tensor)):
        return None
    turned = _TRANSPOSED[operator.name]
    own = row_of(left, replace(call, keys=0), theirs.shape, there)
    gave = row_of(operator.gave, call, other.gave.shape, there)
    if own is None or gave is None:
        return None
    own, gave = own.reshape(-1, own.shape[-1]), gave.reshape(-1, gave.shape[-1])
    width = operator.gave.shape[-1]
    columns = list(call.columns) if gave.shape[-1] != width else list(range(width))
    whole = right.mT if turned else right
    seen = whole[..., columns].reshape(-1, whole.shape[-2], len(columns))
    if len(seen) not in (1, len(own)):
        each = len(own)
        seen = seen[call.row * each : (call.row + 1) * each]
    bias = rest[0] if rest and isinstance(rest[0], Tensor) else None

    def run(row: Tensor, matrix: Tensor) -> Tensor:
        with torch.inference_mode():
            rows = torch.empty_like(left).copy_(row.expand(left.shape))
            given = torch.zeros_like(right)
            (given.mT if turned else given)[..., columns] = matrix
            out = operator.function(rows, given, *_zeroed(rest))
        assert isinstance(out, Tensor)
        cut = row_of(out, call, other.gave.shape, there)
        assert cut is not None
        return cut.reshape(-1, cut.shape[-1])[0]

    return MatrixCall(own, seen.expand(len(own), -1, -1), gave, bias, run)


def _zeroed(rest: Sequence[object]) -> list[object]:
    return [torch.zeros_like(x) if isinstance(x, Tensor) else x for x in rest]
