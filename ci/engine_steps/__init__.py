"""``ci/engines``: real servers, set up, asked and compared; what came out is one page."""
