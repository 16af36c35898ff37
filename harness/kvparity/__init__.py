"""Proves, bit for bit, that a rollout and its rescoring compute the same numbers."""

import importlib
import sys
from types import ModuleType

__version__ = "0.1.0"
# Lazily (scientific-python's SPEC 1), with types in __init__.pyi: `import kvparity` takes no time.
_PLACES = {
    "Report": "reports",
    "RolloutDrift": "drift",
    "Settings": "drift",
    "assert_parity": "assertions",
    "check_model": "models",
    "check_pair": "pairs",
    "drift": "drift",
    "locate": "locate",
    "shrink": "shrink",
    "verify": "verify",
}
__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'kvparity' has no attribute {name!r}")
    return getattr(importlib.import_module(f"kvparity.api.{_PLACES[name]}"), name)


class _Package(ModuleType):
    """``kvparity.locate`` is the function: importing the room of that name does not hide it."""

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _PLACES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted(__all__)
