"""The programs and models that can be put under verification."""
