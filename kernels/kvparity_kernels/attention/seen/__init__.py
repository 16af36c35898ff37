"""Which keys the rows of a program see."""
