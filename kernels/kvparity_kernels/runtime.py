"""Whether kernels are interpreted on the CPU or compiled for a GPU.

Triton decides that when a kernel is decorated, so it is decided here once, before any kernel
module is imported, and cannot change afterwards in the same process.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Literal

import torch

Mode = Literal["interpreter", "compiled"]

_VARIABLE = "TRITON_INTERPRET"
_TRUE = {"1", "true", "yes", "on", "y"}  # what Triton itself reads as true
_frozen: Mode | None = None


def select(device: str) -> None:
    """Choose the interpreter for ``"cpu"`` and compiled kernels for ``"cuda"`` (or ``"cuda:1"``).

    Raises ``RuntimeError`` if kernels were already loaded in the other mode or if
    ``TRITON_INTERPRET`` in the environment asks for the other mode, ``ValueError`` for another
    kind of device.
    """
    kind = device.split(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r} is unknown; use 'cpu' or 'cuda'")
    wanted: Mode = "interpreter" if kind == "cpu" else "compiled"
    if _frozen is not None:
        if _frozen != wanted:
            raise RuntimeError(
                f"device {device!r} needs {_words(wanted)}, but this process has already loaded "
                f"{_words(_frozen)}; choose the device before importing any kernel module"
            )
        return
    asked = _environment()
    if asked is not None and asked != wanted:
        raise RuntimeError(
            f"device {device!r} needs {_words(wanted)}, but {_VARIABLE}={os.environ[_VARIABLE]} "
            f"asks for {_words(asked)}; unset {_VARIABLE} or choose the other device"
        )
    os.environ[_VARIABLE] = "1" if wanted == "interpreter" else "0"


def mode() -> Mode:
    """How kernels run in this process; before they are loaded, how they would run."""
    if _frozen is not None:
        return _frozen
    return _environment() or ("compiled" if torch.cuda.is_available() else "interpreter")


def freeze() -> Mode:
    """Settle the mode; called once, by the module that launches, before it imports Triton."""
    global _frozen
    if _frozen is None:
        chosen = mode()
        os.environ[_VARIABLE] = "1" if chosen == "interpreter" else "0"
        if _library() not in (None, chosen):
            _reload_library()
            if _library() != chosen:
                raise RuntimeError(
                    f"Triton's own library was imported for the other mode and {_words(chosen)} "
                    f"are wanted; set {_VARIABLE}={os.environ[_VARIABLE]} in the environment"
                )
        _frozen = chosen
    return _frozen


def _environment() -> Mode | None:
    value = os.environ.get(_VARIABLE, "").lower()
    if not value:
        return None
    return "interpreter" if value in _TRUE else "compiled"


def _library() -> Mode | None:
    """The mode in which ``tl.sum`` and its like, themselves kernels, were decorated."""
    language = sys.modules.get("triton.language")
    if language is None:
        return None
    kinds = {type(value).__name__ for value in vars(language).values()}
    return "interpreter" if "InterpretedFunction" in kinds else "compiled"


def _reload_library() -> None:
    """Decorate Triton's own library again, in the mode that the environment now asks for.

    Anything may have imported Triton before the mode was chosen: torch does, at odd moments.
    """
    for name in ("standard", "random"):
        if module := sys.modules.get(f"triton.language.{name}"):
            importlib.reload(module)
    importlib.reload(sys.modules["triton.language"])


def _words(which: Mode) -> str:
    return "interpreted kernels" if which == "interpreter" else "compiled kernels"
