"""Do two caches hold the same, or does a cache hold what was written? Prints its answer as JSON.

    python cache_contents.py EXPECTED.safetensors HELD.safetensors

Each file: ``k`` and ``v`` float32 ``[layers, positions, heads, dim]``, the positions of all
sequences one after the other; ``there`` bool ``[layers, positions]`` (left out: everywhere).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import load_file


def answer(expected: Mapping[str, np.ndarray], held: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """``places``: [position, layer, part] of every key and value that differs, in this order.

    ``missing``: [position, layer] that is expected and not held; ``extra``: the other way round.
    Bits are looked at one by one: every position, every layer, every head, of keys and of values.
    """
    shape = expected["k"].shape
    if held["k"].shape != shape:
        return {"equal": None, "shapes": [list(shape), list(held["k"].shape)]}
    everywhere = np.ones(shape[:2], dtype=bool)
    left, right = (each.get("there", everywhere) for each in (expected, held))
    places, elements, first = [], 0, None
    for position in range(shape[1]):
        for layer in range(shape[0]):
            if not (left[layer, position] and right[layer, position]):
                continue
            for part in ("k", "v"):
                a = expected[part][layer, position].view(np.uint32)
                b = held[part][layer, position].view(np.uint32)
                if not (a != b).any():
                    continue
                places.append([position, layer, part])
                elements += int((a != b).sum())
                if first is None:
                    head, dim = (int(each) for each in np.argwhere(a != b)[0])
                    bits = [f"0x{x[head, dim]:08x}" for x in (a, b)]
                    first = {"position": position, "layer": layer, "part": part,
                             "head": head, "dim": dim, "bits": bits}  # fmt: skip
    return {
        "equal": not places and bool((left == right).all()),
        "compared": 2 * int((left & right).sum()),
        "differing": len(places),
        "differing_positions": len({position for position, _, _ in places}),
        "differing_elements": elements,
        "places": places,
        "missing": np.argwhere((left & ~right).T).tolist(),
        "extra": np.argwhere((right & ~left).T).tolist(),
        "first": first,
    }


if __name__ == "__main__":
    print(json.dumps(answer(*(load_file(name) for name in sys.argv[1:3]))))
