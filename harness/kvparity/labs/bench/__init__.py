"""What invariance costs on the user's own CUDA device: times side by side, from one run."""
