"""What kvparity relies on in transformers beyond its documentation.

A name that moved is tried under its new and its old name here, and nowhere else.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from kvparity.subject import UnsupportedError

# The argument of a forward that takes the cache: since 5.24; before; before, of Mamba and xLSTM.
CACHE_ARGUMENTS = ("cache", "past_key_values", "cache_params")


def cache_argument(model: Any) -> str:
    """The name under which the forward of ``model`` takes its cache.

    Raises:
        UnsupportedError: it takes none under a name that is known here.
    """
    known = inspect.signature(model.forward).parameters
    for name in CACHE_ARGUMENTS:
        if name in known:
            return name
    raise UnsupportedError(
        f"the forward of {type(model).__name__} takes no cache (none of its arguments is called "
        f"{' or '.join(CACHE_ARGUMENTS)}), so it has no decoding step to verify"
    )


def given_cache(arguments: Mapping[str, Any]) -> Any:
    """The cache among the named arguments of a forward call, None if there is none."""
    for name in CACHE_ARGUMENTS:
        if arguments.get(name) is not None:
            return arguments[name]
    return None


def made_cache(output: Any) -> Any:
    """The cache that a forward call returned, None if it returned none.

    ``output`` is transformers' ``ModelOutput``, which names its fields as the arguments.
    """
    return given_cache(dict(output.items()))
