"""Subject *attention*: a pair of kernels, prefill and decode."""
