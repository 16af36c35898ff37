"""Functions by the names that a contract gives them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

Kernel = Callable[..., object]
"""A function as a contract names it: what it takes is keywords, what it returns is checked."""

_files: dict[tuple[Path, int, int], ModuleType] = {}
"""Modules by file, time and size: an operator that a file registers can be registered once."""

_instead: dict[Path, Path] = {}
"""By file: the copy that is imported in its place."""

_folders: dict[Path, Path] = {}
"""By folder, which need not be here: where its copies lie."""

_given: dict[str, Kernel] = {}
"""By name: the caller's own function, as it is in this process, with what it closes over."""


def forget() -> None:
    """Import files anew from now on, as a process would that has imported none."""
    _files.clear()


@contextmanager
def given(functions: Mapping[str, Kernel]) -> Iterator[None]:
    """Let names mean these functions, as long as this lasts; nothing is imported for them."""
    _given.update(functions)
    try:
        yield
    finally:
        _given.clear()


class _Finder(MetaPathFinder):
    """Finds modules as Python does, and gives the kept copy of a file in its place."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = PathFinder.find_spec(name, path, target) if _instead else None
        kept = _instead.get(Path(found.origin).resolve()) if found and found.origin else None
        if found is None or kept is None:
            return None
        inner = found.submodule_search_locations
        return importlib.util.spec_from_file_location(name, kept, submodule_search_locations=inner)


@contextmanager
def instead(
    kept: Mapping[Path, Path], folders: Mapping[Path, Path] | None = None
) -> Iterator[None]:
    """Import copies in place of files, as long as this lasts.

    What a copy imports is found where its file lies, and so is what it looks for beside itself;
    ``folders``: by folder, another one where that is found as well.
    """
    finder = _Finder()
    _folders.update(folders or {})
    _instead.update({path.resolve(): copy for path, copy in kept.items()})
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _instead.clear()
        _folders.clear()


def load_callable(name: str, base: Path) -> Kernel:
    """Import ``module:function`` or ``path/to/file.py:function`` (relative to ``base``).

    Raises:
        ValueError: it cannot be imported or is not callable; the message names the reason.
    """
    if (own := _given.get(name)) is not None:
        return own
    target, _, attribute = name.rpartition(":")
    try:
        if target.endswith(".py"):
            with _on_path((base / target).parent):
                module = _load_file(base / target)
        else:
            with _on_path(base):
                module = importlib.import_module(target)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a script that ends itself must not end us
        raise ValueError(
            f"{name}: {target} does not import ({type(error).__name__}: {error}); expected an "
            f"importable module or a .py file relative to {base}"
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        offered = sorted(n for n in vars(module) if not n.startswith("_"))
        raise ValueError(
            f"{name}: {target} has no function {attribute!r}; it offers {', '.join(offered[:12])}"
        )
    return found  # type: ignore[no-any-return] # callable() does not narrow to a signature


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """Let what is imported find its neighbours, as a script would; for the import only."""
    copies = _folders.get(folder.resolve())
    found = [str(folder)] if copies is None else [str(folder), str(copies)]
    sys.path[:0] = found
    try:
        yield
    finally:
        for each in found:
            sys.path.remove(each)


def _load_file(path: Path) -> ModuleType:
    """The module of a file, run at the first call, however many functions are named from it."""
    real = path.resolve()
    source = _instead.get(real, path)
    if not source.is_file():
        raise FileNotFoundError(f"no file {path}")
    about = source.stat()
    key = (real, about.st_mtime_ns, about.st_size)
    if key not in _files:
        # Two files of one name are two modules.
        name = f"kvparity_subject_{path.stem}_{sha256(str(real).encode()).hexdigest()[:8]}"
        loader = SourceFileLoader(name, str(source))
        spec = importlib.util.spec_from_loader(name, loader)
        assert spec is not None, "a source file's loader always finds one"
        module = importlib.util.module_from_spec(spec)
        module.__file__ = str(path)
        sys.modules[name] = module
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        _files[key] = module
    return _files[key]
