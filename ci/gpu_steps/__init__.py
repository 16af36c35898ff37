"""Everything that a CUDA device has to say, step by step (ci/gpu)."""
