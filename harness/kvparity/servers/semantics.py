"""Whether logprobs of drawn tokens follow the temperature: found out by asking."""

from __future__ import annotations

from typing import Literal

from kvparity.servers.values import Draw, Server

Semantics = Literal["raw", "processed", "unknown"]
_PROMPT = (1, 2, 3)
_TOP = 5
_NEAR = 0.1


def logprob_semantics(server: Server) -> Semantics:
    """``raw``: of the model's own distribution; ``processed``: after the temperature.

    The first place behind one prompt is asked for twice, at temperature 1 and 2. The distance
    between the logprobs of two tokens stays in the first case, and halves in the second.

    Raises:
        ServerError: the server does not answer as it must.
    """
    first, second = (
        dict(server.generate(Draw(_PROMPT, 1, temperature, seed=0, top=_TOP)).top)
        for temperature in (1.0, 2.0)
    )
    shared = sorted(first.keys() & second.keys(), key=first.__getitem__)
    if len(shared) < 2:
        return "unknown"
    low, high = shared[0], shared[-1]
    one, two = first[high] - first[low], second[high] - second[low]
    if one <= 0:
        return "unknown"
    if abs(two / one - 1) < _NEAR:
        return "raw"
    return "processed" if abs(two / one - 0.5) < _NEAR else "unknown"
