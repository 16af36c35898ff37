"""Another text's code, put into the functions of a live process."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType

Place = tuple[str, int]
"""Name and first line: a code object of a file as it is on disk."""


class PatchError(Exception):
    """No function is there that has the code, or one cannot take the other code."""


def functions(files: set[Path]) -> dict[Path, dict[Place, list[FunctionType]]]:
    """All function objects whose code is from one of the files."""
    found: dict[Path, dict[Place, list[FunctionType]]] = defaultdict(lambda: defaultdict(list))
    known = {str(path): path for path in files}
    for each in gc.get_objects():
        if type(each) is FunctionType and (path := known.get(each.__code__.co_filename)):
            found[path][_place(each.__code__)].append(each)
    return found


def patch(path: Path, text: str, line: int, live: dict[Place, list[FunctionType]]) -> None:
    """Give the functions of ``path`` around ``line`` the code that ``text`` has for them.

    ``live``: the function objects of the file. What is not inside of a function stays as it is.
    """
    old = compile(path.read_text(), str(path), "exec", dont_inherit=True)
    new = compile(text, str(path), "exec", dont_inherit=True)
    done = 0
    for before, after in _pairs(old, new):
        last = max((each[2] or 0 for each in before.co_lines()), default=0)
        last = max([last, *_lines(before)])
        if before.co_flags & 0x2 and before.co_firstlineno <= line <= last:  # CO_NEWLOCALS
            for function in live.get(_place(before), ()):
                try:
                    function.__code__ = after
                except ValueError as error:
                    raise PatchError(f"{path}:{line}: {error}") from error
                done += 1
    if not done:
        raise PatchError(f"{path}:{line}: no live function has this line")


def _pairs(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """The code objects of both texts, by their order: a change adds or takes few."""
    olds, news = _inner(old), _inner(new)
    if len(olds) != len(news):
        names = [each.co_name for each in news]
        olds = [each for each in olds if each.co_name in names]
        news = [each for each in news if each.co_name in {old.co_name for old in olds}]
    for before, after in zip(olds, news, strict=False):
        if before.co_name == after.co_name:
            yield before, after
            yield from _pairs(before, after)


def _inner(code: CodeType) -> list[CodeType]:
    return [each for each in code.co_consts if isinstance(each, CodeType)]


def _lines(code: CodeType) -> Iterator[int]:
    for each in _inner(code):
        yield from (line for _, _, line in each.co_lines() if line is not None)
        yield from _lines(each)


def _place(code: CodeType) -> Place:
    return code.co_name, code.co_firstlineno
