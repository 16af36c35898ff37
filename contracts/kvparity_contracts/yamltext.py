"""YAML text read into plain data, with the place of every key and value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import Event
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.parser import Parser
from ruamel.yaml.reader import ReaderError
from typing_extensions import TypeAliasType

from kvparity_contracts.base import Fault, KeyPath, show
from kvparity_contracts.yamlwords import Place, placed, syntax, unreadable

DEEPEST = 32
"""Deeper nesting is refused: a contract has 5 levels."""
MOST_KEYS = 2000
"""More keys are refused: a contract has some dozens."""
MOST_ALIASES = 10
"""Aliases that are reported, one by one."""
TAG = "tag:yaml.org,2002:"
SCALARS = {"int", "float", "bool", "null"}
SURROGATE = re.compile("[\ud800-\udfff]")
COLLECTIONS = {TAG + "map", TAG + "seq"}
TEXT = {"str", "timestamp", "value", "merge"}

Data = TypeAliasType("Data", "bool | int | float | str | list[Data] | dict[str, Data] | None")
"""What a document holds."""


@dataclass
class Text:
    """What a file holds: data, where each part stands, and what is wrong with the YAML itself."""

    data: Data = None
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    values: dict[KeyPath, Place] = field(default_factory=dict)
    faults: list[tuple[Place, Fault]] = field(default_factory=list)

    def place(self, path: KeyPath, *, key: bool = False) -> Place:
        """Where a value (or its key) stands, or else the nearest thing around it that is there.

        Something that is missing stands where the key of its mapping does.
        """
        known = next((path[:n] for n in range(len(path), 0, -1) if path[:n] in self.values), None)
        if known is None:
            return (1, 1)
        inside = path[len(known) :]
        if key or (inside and isinstance(inside[0], str)):
            return self.keys.get(known, self.values[known])
        return self.values[known]

    def shown(self, path: KeyPath) -> KeyPath:
        """The path without indices into a scalar that stands where a list may."""
        while path and isinstance(path[-1], int) and path not in self.values:
            path = path[:-1]
        return path


def read(text: str) -> Text:
    """Parse one YAML 1.2 document. Never raises for bad YAML: ``faults`` says what is wrong."""
    found = Text()
    try:
        events = [*_events(text, found)]
        if not found.faults and (node := _composed(events)) is not None:
            found.data = _build(node, (), found)
    except MarkedYAMLError as error:
        found.faults.append(syntax(error))
    except ReaderError as error:
        found.faults.append(unreadable(text, error))
    except YAMLError as error:
        found.faults.append(((1, 1), Fault((), f"this is not YAML: {show(str(error))}")))
    return found


def _events(text: str, found: Text) -> Iterator[Event]:
    """Look at what there is before anything is built of it; stop at what no contract has."""
    depth = 0
    keys = _Keys()
    for event in YAML(typ="safe", pure=True).parse(text):
        kind = type(event).__name__
        depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
        place = placed(event.start_mark)
        if depth > DEEPEST:
            found.faults.append((place, Fault((), f"nested deeper than {DEEPEST} levels")))
            return
        if keys.count(kind) > MOST_KEYS:
            message = f"found more than {MOST_KEYS} keys"
            found.faults.append((place, Fault((), message, "a contract, which has some dozens")))
            return
        if kind == "AliasEvent":
            message = f"found the alias '*{event.anchor}'"
            found.faults.append((place, Fault((), message, "the value itself, written out")))
            if len(found.faults) == MOST_ALIASES:
                return
        yield event


def _composed(events: list[Event]) -> Node | None:
    """The tree of these events: to scan the text again would take as long as the rest together."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Parser = lambda loader: _Replayed(events)
    node: Node | None = yaml.compose("")
    return node


class _Replayed(Parser):
    """Gives events that were parsed before."""

    def __init__(self, events: list[Event]) -> None:
        super().__init__(None)
        self.coming = iter(events)
        self.state = lambda: next(self.coming, None)


class _Keys:
    """Counts the keys of mappings in a stream of events."""

    def __init__(self) -> None:
        self.seen = 0
        self.inside: list[int] = []
        """Of each open collection, the values so far; -1: a list, whose values are no keys."""

    def count(self, kind: str) -> int:
        """The keys so far, once an event of this kind has come."""
        if kind in ("ScalarEvent", "AliasEvent") or kind.endswith("StartEvent"):
            self._value()
        if kind in ("MappingStartEvent", "SequenceStartEvent"):
            self.inside.append(0 if kind == "MappingStartEvent" else -1)
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            self.inside.pop()
        return self.seen

    def _value(self) -> None:
        if self.inside and self.inside[-1] >= 0:
            self.seen += self.inside[-1] % 2 == 0
            self.inside[-1] += 1


def _build(node: Node, path: KeyPath, found: Text) -> Data:
    start, key = placed(node.start_mark), found.keys.get(path)
    # A block under its key is reported at the key: nobody looks for it at its first item.
    scalar = isinstance(node, ScalarNode)
    found.values[path] = key if key and start[0] > key[0] and not scalar else start
    if isinstance(node, (MappingNode, SequenceNode)) and str(node.tag) not in COLLECTIONS:
        found.faults.append((placed(node.start_mark), _tagged(node, path, "a mapping or a list")))
    if isinstance(node, MappingNode):
        return dict(_pairs(node, path, found))
    if isinstance(node, SequenceNode):
        return [_build(item, (*path, i), found) for i, item in enumerate(node.value)]
    if node.start_mark.index == node.end_mark.index and path in found.keys:
        found.values[path] = found.keys[path]  # nothing stands there, so there is no place either
    assert isinstance(node, ScalarNode)  # there are three kinds of nodes
    return _scalar(node, path, found)


def _pairs(node: MappingNode, path: KeyPath, found: Text) -> Iterator[tuple[str, Data]]:
    seen: dict[str, Place] = {}
    for key_node, value_node in node.value:
        place = placed(key_node.start_mark)
        if not isinstance(key_node, ScalarNode):
            found.faults.append((place, Fault(path, "found a key that is not text", "a word")))
            continue
        key = str(key_node.value)
        if not key.isprintable():  # it could not be shown in one line
            found.faults.append((place, Fault(path, f"found the key {show(key)}", "a word")))
            continue
        if key in seen:
            message = f"the key {show(key)} is repeated, first in line {seen[key][0]}"
            found.faults.append((place, Fault((*path, key), message, "each key once")))
            continue
        seen[key] = place
        found.keys[(*path, key)] = place
        yield key, _build(value_node, (*path, key), found)


def _scalar(node: ScalarNode, path: KeyPath, found: Text) -> Data:
    tag = str(node.tag)
    kind = tag.removeprefix(TAG) if tag.startswith(TAG) else ""
    if kind in TEXT and SURROGATE.search(node.value):
        message = f"found {show(node.value)}, which holds half a character"
        found.faults.append((placed(node.start_mark), Fault(path, message, "Unicode text")))
        return ""
    if kind in TEXT:
        return str(node.value)
    if kind in SCALARS:
        try:
            value: int | float | bool | None = _CONSTRUCTOR.construct_object(node)
            return value
        except (ValueError, YAMLError):
            pass
    found.faults.append((placed(node.start_mark), _tagged(node, path, show(node.value))))
    return None


def _tagged(node: Node, path: KeyPath, what: str) -> Fault:
    tag = str(node.tag).replace(TAG, "!!")
    return Fault(path, f"found {what} with the tag {tag!r}", "a plain value")


class _Constructor(SafeConstructor):
    """Scalars only; a constructor of its own because ruamel ties them to a loader."""


_CONSTRUCTOR = _Constructor(loader=YAML(typ="safe", pure=True))
