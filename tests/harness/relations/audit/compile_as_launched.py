"""Compile one side twice, as the audit does and through Triton's own launch path; compare both.

Prints of each kernel, for either way, a hash of its PTX and its place in Triton's cache.

A program of its own, not a test: kernels are either interpreted or compiled in one process. Run
with ``TRITON_INTERPRET=0``. Triton is told that its device is an sm_90, and nothing is launched.
"""

from __future__ import annotations

import hashlib
import json

from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from kvparity.relations.audit import worker
from kvparity.relations.audit.build import compile_launch
from kvparity.relations.audit.request import Request, Shape


class Device:
    """What Triton asks of a device before it compiles."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def main() -> None:
    driver.set_active(Device())
    found = {}
    for launch in worker.launches(Request("decode", "sm_90", Shape(4, 2, 16))):
        launched = launch.kernel.function.warmup(grid=(1,), **launch.arguments)
        both = (compile_launch(launch, "sm_90"), launched)
        found[launch.kernel.name] = [
            [hashlib.sha256(each.asm["ptx"].encode()).hexdigest(), each.hash] for each in both
        ]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
