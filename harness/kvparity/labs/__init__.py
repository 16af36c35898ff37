"""Beside verification: codecs, benches, and the matrix of defects. Nothing rests on them."""
