"""These tests need a CUDA device and compiled kernels; elsewhere they skip and say so.

Their helpers (``device_cases``) are a plain module beside them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        reason = "no CUDA device on this machine"
    elif os.environ.get("KVPARITY_GPU_TESTS") != "1":
        reason = "compiled kernels run with KVPARITY_GPU_TESTS=1 pytest tests/gpu"
    else:
        return
    for item in items:
        if "/gpu/" in str(item.path):
            item.add_marker(pytest.mark.skip(reason=reason))
