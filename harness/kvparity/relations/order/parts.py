"""The five parts, each found on decode and certified on prefill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kvparity.core.bits import differing
from kvparity.relations.order.certify import Certificate, certify
from kvparity.relations.order.declared import Declared
from kvparity.relations.order.denominator import Denominator
from kvparity.relations.order.difference import first_difference
from kvparity.relations.order.division import division
from kvparity.relations.order.errors import NotATree, NotMeasured, ProbeLied
from kvparity.relations.order.heterogeneous import explain
from kvparity.relations.order.keys import KeyOrder, Mode
from kvparity.relations.order.products import ProductOrder
from kvparity.relations.order.query_products import QueryProducts
from kvparity.relations.order.recover import recover
from kvparity.relations.order.report import Part, Status
from kvparity.relations.order.rescale import Edges, RescaleEdges, certify_edges, recover_edges
from kvparity.relations.order.shape import describe
from kvparity.relations.order.sides import Side
from kvparity.relations.order.stats import Stats
from kvparity.relations.order.tree import SumTree
from kvparity.relations.order.triples import certify_triples, recover_triples

_FORMS = {
    "divides": "divides by l",
    "reciprocal": "multiplies by 1 / l",
    "unclear": "not visible in this dtype",
    "other": "neither v / l nor v * (1 / l)",
}


@dataclass(frozen=True)
class Method:
    """How one part's tree is recovered and certified; ``turn`` moves the probes."""

    name: str
    recover: Callable[[Side], tuple[SumTree, Stats]]
    certify: Callable[[Side, SumTree, int], Certificate]
    again: Callable[[Side, SumTree], None] = lambda side, tree: None


def tree_part(method: Method, decode: Side, prefill: Side) -> Part:
    """Recover on decode, certify there with turned probes, then certify on prefill.

    Where an order is declared its tree is tried first: if decode has it, nothing is recovered. A
    tree that both have and that is not of the declared order is ``undeclared``.

    Raises:
        NotATree, ProbeLied, NotMeasured: as the probes do.
    """
    cost: dict[str, Stats] = {}
    declared = Declared.of(decode)
    tree = None if declared is None else _tried(method, decode, declared, cost)
    if tree is None:
        tree = _confirmed(method, decode, cost)
    line = describe(tree)
    certificate = method.certify(prefill, tree, 0)
    cost["certify prefill"] = certificate.stats
    if certificate.holds:
        method.again(prefill, tree)
        seen = "" if declared is None else declared.missing(method.name, tree)
        status: Status = "undeclared" if seen else "same"
        return Part(method.name, status, line, line, seen, trees={"decode": tree}, cost=cost)
    other = None if declared is None else _tried(method, prefill, declared, cost)
    if other is None:
        other = _confirmed(method, prefill, cost)
    words = first_difference(tree, other, names=("decode", "prefill"))
    if not words:
        raise NotATree(f"prefill answers differently from call to call ({certificate.seen})")
    trees = {"decode": tree, "prefill": other}
    return Part(method.name, "different", line, describe(other), words, trees, cost)


def _tried(
    method: Method, side: Side, declared: Declared, cost: dict[str, Stats]
) -> SumTree | None:
    """The declared tree if it is certified, with turned probes too; None if it is not."""
    tree = declared.tree(method.name)
    certificate = method.certify(side, tree, 0)
    cost[f"try {side.which}"] = certificate.stats
    if not certificate.holds:
        return None
    certificate = method.certify(side, tree, 1)
    cost[f"certify {side.which}"] = certificate.stats
    if not certificate.holds:
        raise NotATree(
            f"{side.which} adds in the declared order, but with probes moved to other columns, "
            f"keys or heads {certificate.seen}"
        )
    method.again(side, tree)
    return tree


def _confirmed(method: Method, side: Side, cost: dict[str, Stats]) -> SumTree:
    tree, cost[f"recover {side.which}"] = method.recover(side)
    certificate = method.certify(side, tree, 1)
    cost.setdefault(f"certify {side.which}", certificate.stats)
    if not certificate.holds:
        raise NotATree(
            f"{side.which}: a tree was recovered, but moved to other columns, keys or heads "
            f"{certificate.seen}"
        )
    method.again(side, tree)
    return tree


def key_part(decode: Side, prefill: Side) -> Part:
    """The order of P V. Falls back on lone weights where equal ones cannot be read."""
    lies = []
    modes: tuple[tuple[Mode, Mode], ...] = (("uniform", "contrast"), ("alone", "alone"))
    # fp8_e4m3 holds no mask that would swallow units of the same weight.
    for mode, second in modes[decode.format.name == "fp8_e4m3" :]:
        try:
            return tree_part(_keys(mode, second), decode, prefill)
        except ProbeLied as lie:
            lies.append(f"{mode} weights: {lie}")
    raise NotATree("no order can be read; " + "; ".join(lies))


def _keys(mode: Mode, second: Mode) -> Method:
    def find(side: Side) -> tuple[SumTree, Stats]:
        try:
            return recover(KeyOrder(side, mode))
        except NotATree as error:
            raise NotATree(explain(side, mode, str(error))) from error

    def again(side: Side, tree: SumTree) -> None:
        if not (certificate := certify(KeyOrder(side, second, turn=2), tree)).holds:
            raise NotATree(
                f"{side.which}: with {second} instead of {mode} weights {certificate.seen}; the "
                "order depends on the data"
            )

    return Method(
        "key order",
        find,
        lambda side, tree, turn: certify(KeyOrder(side, mode, turn=turn), tree),
        again,
    )


def _products(side: Side, turn: int) -> ProductOrder | QueryProducts:
    return QueryProducts(side, turn=turn) if side.coded else ProductOrder(side, turn=turn)


PRODUCTS = Method(
    "products",
    lambda side: recover(_products(side, 0)),
    lambda side, tree, turn: certify(_products(side, turn), tree),
)
DENOMINATOR = Method(
    "denominator",
    lambda side: recover_triples(Denominator(side)),
    lambda side, tree, turn: certify_triples(Denominator(side, turn=turn), tree),
)


def edges_part(decode: Side, prefill: Side) -> Part:
    """Where the running maximum is renewed."""
    declared, cost = Declared.of(decode), dict[str, Stats]()
    found = None if declared is None else _tried_edges(decode, declared, cost)
    if found is None:
        found, cost["recover decode"] = recover_edges(RescaleEdges(decode))
    line = _edges(found, decode.first)
    seen, cost["certify prefill"] = certify_edges(RescaleEdges(prefill), found)
    if not seen:
        if declared is not None and found != declared.edges:
            seen = f"the declared order has edges {_edges(declared.edges, decode.first)}"
            return Part("rescale edges", "undeclared", line, line, seen, cost=cost)
        return Part("rescale edges", "same", line, line, cost=cost)
    other = None if declared is None else _tried_edges(prefill, declared, cost)
    if other is None:
        other, cost["recover prefill"] = recover_edges(RescaleEdges(prefill))
    if other == found:
        raise NotATree(f"prefill answers differently from call to call ({seen})")
    return Part("rescale edges", "different", line, _edges(other, prefill.first), seen, cost=cost)


def _tried_edges(side: Side, declared: Declared, cost: dict[str, Stats]) -> Edges | None:
    unlike, cost[f"try {side.which}"] = certify_edges(RescaleEdges(side), declared.edges)
    return None if unlike else declared.edges


def _edges(edges: Edges, first: int) -> str:
    """In words; counted from key 0, though a window may begin at the key ``first``."""

    def every(seen: tuple[int, ...]) -> str:
        at = tuple(x + first for x in seen)
        if not at:
            return "none seen"
        step = at[0]
        if len(at) > 2 and all(x == step * count for count, x in enumerate(at, 1)):
            return f"every {step} keys to {at[-1]}"
        return "at " + ", ".join(map(str, at[:8])) + (", …" if len(at) > 8 else "")

    return f"ascending {every(edges.up)}; descending {every(edges.down)}"


def division_part(decode: Side, prefill: Side) -> Part:
    """How the result is divided."""
    mine, other = division(decode), division(prefill)
    if mine.form == other.form == "unclear":
        raise NotMeasured("v / l and v * (1 / l) are equal in results of this dtype")
    lines = _FORMS[mine.form], _FORMS[other.form]
    wrong = int(differing(mine.bits, other.bits).sum())
    if mine.form == other.form and not wrong:
        return Part("division", "same", *lines)
    seen = (
        f"decode: {lines[0]}, prefill: {lines[1]}; {wrong} of {mine.bits.numel()} quotients differ"
    )
    return Part("division", "different", *lines, seen)


def tried(name: str, find: Callable[[], Part]) -> Part:
    """The part, or the status that its failure is."""
    try:
        return find()
    except NotATree as finding:
        return Part(name, "not-a-tree", seen=str(finding))
    except (ProbeLied, NotMeasured) as reason:
        return Part(name, "not-measured", seen=str(reason))
