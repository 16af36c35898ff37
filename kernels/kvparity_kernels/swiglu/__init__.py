"""The gated activation of llama and qwen."""

from kvparity_kernels.swiglu.api import swiglu

__all__ = ["swiglu"]
