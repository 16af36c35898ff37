"""Which inputs of a traced graph its outputs depend on.

Torch's exported graphs write in place, so a value is followed through the memory that it lies in:
operators say in their schema what they write and what is a view of what.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch.fx import Graph, Node
from torch.fx.node import Argument

from kvparity_kernels.relied.torch import target_schema

if TYPE_CHECKING:
    from kvparity_kernels.relied.torch import AliasInfo


def _arguments(node: Node) -> Iterator[tuple[AliasInfo | None, Argument]]:
    """(what the schema says of the argument's memory, what is given for it)."""
    schema = target_schema(node.target)
    known = [] if schema is None else schema.arguments
    for place, given in enumerate(node.args):
        yield (known[place].alias_info if place < len(known) else None), given
    for name, given in node.kwargs.items():
        yield next((a.alias_info for a in known if a.name == name), None), given


def _nodes(given: Argument) -> list[Node]:
    found: list[Node] = []
    torch.fx.map_arg(given, found.append)
    return found


def _aliases(node: Node) -> list[Node]:
    """The arguments of which the result of ``node`` may be a view."""
    if node.op != "call_function":
        return []
    if getattr(node.target, "__name__", "") == "getitem":
        return _nodes(node.args[0])
    schema = target_schema(node.target)
    if schema is None:
        return []
    out: set[str] = set()
    for result in schema.returns:
        if result.alias_info is not None:
            out |= set(result.alias_info.before_set)
    found: list[Node] = []
    for info, given in _arguments(node):
        if info is not None and set(info.before_set) & out:
            found += _nodes(given)
    return found


def dependences(graph: Graph) -> set[str]:
    """The names of the placeholders that the graph's outputs are computed from.

    A call of something without a schema is taken to depend on all its arguments and to write none;
    a graph inside a graph counts as such a call.
    """
    sources: dict[Node, set[str]] = {}  # by memory: the placeholders its content comes from

    def memories(node: Node) -> set[Node]:
        seen, todo = set(), [node]
        while todo:
            at = todo.pop()
            up = _aliases(at)
            if up:
                todo += [x for x in up if x not in seen]
            else:
                seen.add(at)
        return seen

    wanted: set[str] = set()
    for node in graph.nodes:
        if node.op == "placeholder":
            sources[node] = {node.name}
            continue
        before: set[str] = set()
        for given in node.all_input_nodes:
            before |= set[str]().union(*(sources.get(memory, set()) for memory in memories(given)))
        if node.op == "output":
            wanted = before
            continue
        if not _aliases(node):
            sources[node] = set(before)
        for info, given in _arguments(node):
            if info is not None and info.is_write:
                for written in _nodes(given):
                    for memory in memories(written):
                        sources.setdefault(memory, set()).update(before)
    return wanted
