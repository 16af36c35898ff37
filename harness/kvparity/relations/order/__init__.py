"""In which order numbers are added: what samples cannot show.

Bits that agree on samples can come from different orders, and equal orders do not make equal bits;
so a certificate of the order stands beside bits, never instead of them.
"""

from __future__ import annotations

from kvparity.relations.order.certify import Certificate, certify
from kvparity.relations.order.difference import first_difference
from kvparity.relations.order.errors import NotATree, NotMeasured, ProbeLied
from kvparity.relations.order.examine import order_report
from kvparity.relations.order.recover import recover
from kvparity.relations.order.report import OrderReport, Part
from kvparity.relations.order.shape import describe
from kvparity.relations.order.sums import SumOracle
from kvparity.relations.order.tree import SumTree

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
