"""A plan is run, and what is compared is kept: values, digests, and what caches hold."""
