"""Attention of other libraries as pairs that a contract can name.

Each module needs its library only; nothing imports them before a contract names them.
"""
