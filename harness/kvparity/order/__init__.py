"""In which order numbers are added: what samples cannot show.

Bits that agree on samples can come from different orders, and equal orders do not make equal bits;
so a certificate of the order stands beside bits, never instead of them.
"""

from __future__ import annotations

from kvparity.order.certify import Certificate, certify
from kvparity.order.difference import first_difference
from kvparity.order.errors import NotATree, NotMeasured, ProbeLied
from kvparity.order.examine import order_report
from kvparity.order.recover import recover
from kvparity.order.report import OrderReport, Part
from kvparity.order.shape import describe
from kvparity.order.sums import SumOracle
from kvparity.order.tree import SumTree

__all__ = [
    "Certificate",
    "NotATree",
    "NotMeasured",
    "OrderReport",
    "Part",
    "ProbeLied",
    "SumOracle",
    "SumTree",
    "certify",
    "describe",
    "first_difference",
    "order_report",
    "recover",
]
