"""These tests need a CUDA device and compiled kernels; elsewhere they skip and say so."""

from __future__ import annotations

import os

import pytest
import torch


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
