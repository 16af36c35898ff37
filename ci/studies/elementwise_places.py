"""Do bits of torch's elementwise operations on this CPU depend on where an element stands?

    python ci/studies/elementwise_places.py           a Markdown table
    python ci/studies/elementwise_places.py --json    one JSON document

Every element is computed alone (64 copies of it in a row) and again in five places: whole, cut
shorter and shifted, strided, padded to a multiple of 256, and padded after a shift. The counts are
elements of 4099 whose bits were not those of the element alone, the worst of all cuts and shifts.
Half of the runs have values near 2, the other half near 300 with every seventh near 300,000.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own short name

COUNT = 4099
PADDED = 4352
OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "tanh": torch.tanh,
    "cos": torch.cos,
    "sin": torch.sin,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "rsqrt": lambda x: torch.rsqrt(x.abs()),
    "pow(x, 2)": lambda x: x**2,
    "pow(x, 1.7)": lambda x: x.abs() ** 1.7,
    "pow(10000, x)": lambda x: 10000.0**x,
    "gelu": F.gelu,
    "gelu (tanh)": lambda x: F.gelu(x, approximate="tanh"),
    "softplus": F.softplus,
    "mish": F.mish,
    "elu": F.elu,
    "exp2": torch.exp2,
    "sinh": torch.sinh,
    "log": lambda x: torch.log(x.abs()),
    "erf": torch.erf,
    "atan2": lambda x: torch.atan2(x, x * x + 0.1),
    "logaddexp": lambda x: torch.logaddexp(x, x * 0.3),
    "add(alpha=0.37)": lambda x: torch.add(x, x * 1.3, alpha=0.37),
    "addcmul": lambda x: torch.addcmul(x, x * 1.3, x * 0.7, value=0.3),
    "lerp": lambda x: torch.lerp(x, x * 1.7, 0.3),
    "add": lambda x: x + x * 1.3,
    "mul": lambda x: x * 1.1,
    "div": lambda x: x / 3.7,
    "sqrt": lambda x: x.abs().sqrt(),
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def off(found: Tensor, wanted: Tensor) -> int:
    """Elements whose bits differ; two NaN are equal."""
    view = torch.int32 if found.dtype == torch.float32 else torch.int16
    return int(((found.view(view) != wanted.view(view)) & ~wanted.isnan()).sum())


def places(function: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, int]:
    """How many elements change in each kind of place."""
    alone = function(x[:, None].expand(-1, 64).contiguous())[:, 0].contiguous()
    shifts = range(1, 40)
    fill = [x.new_ones(PADDED - COUNT - s) for s in shifts]
    return {
        "cut": max(
            off(function(x), alone),
            *(off(function(x[s:].clone()), alone[s:]) for s in shifts),
            *(off(function(x[:s].clone()), alone[:s]) for s in shifts),
        ),
        "strided": off(function(torch.stack([x, x], 1)[:, 0]).contiguous(), alone),
        "padded": max(
            off(function(torch.cat([x.new_ones(s), x, rest]))[s : s + COUNT], alone)
            for s, rest in zip(shifts, fill, strict=True)
        ),
    }


def measure() -> dict[str, dict[str, dict[str, int]]]:
    """The worst counts, by operation and dtype."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for name, function in OPERATIONS.items():
        for dtype in DTYPES:
            generator = torch.Generator().manual_seed(0)
            near = torch.randn(COUNT, generator=generator) * 2
            far = torch.randn(COUNT, generator=generator) * 300
            far[::7] *= 1000
            both = [places(function, x.to(dtype)) for x in (near, far)]
            worst = {kind: max(each[kind] for each in both) for kind in both[0]}
            found.setdefault(name, {})[str(dtype).removeprefix("torch.")] = worst
    return found


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--json", action="store_true", help="one JSON document")
    torch.set_num_threads(1)
    found, capability = measure(), torch.backends.cpu.get_cpu_capability()
    if options.parse_args().json:
        document = {"torch": torch.__version__, "capability": capability, "elements": COUNT}
        print(json.dumps(document | {"operations": found}, indent=1))
        return
    names = [str(dtype).removeprefix("torch.") for dtype in DTYPES]
    print(f"| operation | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for operation, by in found.items():
        cells = [" / ".join(str(n) for n in by[name].values()) for name in names]
        print(f"| `{operation}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
