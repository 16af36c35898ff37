"""Models of Hugging Face transformers: loading, caches, attention, sessions, ``generate()``."""

# First: transformers imports Triton, and Triton's mode must be settled before that.
from kvparity_kernels import launch as _settled  # noqa: F401 - imported for that effect alone
