"""Which kind of kernels a test run uses, settled before any kernel module is imported.

Kernels are interpreted or compiled for the life of a process. All tests but those in tests/gpu run
interpreted, on any machine; ``KVPARITY_GPU_TESTS=1 pytest tests/gpu`` runs the others.
"""

from __future__ import annotations

import os
import signal

import pytest

GPU_RUN = os.environ.get("KVPARITY_GPU_TESTS") == "1"
os.environ["TRITON_INTERPRET"] = "0" if GPU_RUN else "1"


# A shell or nohup may have started this with signals ignored, which processes of the tests inherit.
for number, own in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, own)


def pytest_report_header() -> str:
    kind = "compiled (tests/gpu only)" if GPU_RUN else "interpreted"
    return f"kvparity kernels: {kind}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/gpu/" not in str(item.path) and GPU_RUN:
            raise pytest.UsageError("KVPARITY_GPU_TESTS=1 runs tests/gpu alone: pytest tests/gpu")
