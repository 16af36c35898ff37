"""Proves, bit for bit, that a rollout and its rescoring compute the same numbers."""

import importlib

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


def __dir__() -> list[str]:
    return sorted(__all__)
