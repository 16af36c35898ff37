"""Heads whose numbers hide a wrong mapping of query heads to KV heads."""

from __future__ import annotations

from collections.abc import Iterator

from kvparity_contracts.base import KeyPath
from kvparity_contracts.contract import Contract
from kvparity_contracts.subjects import Attention


def hidden_mapping(contract: Contract) -> Iterator[tuple[KeyPath, str]]:
    """Of a pair: as many query heads in a group as there are KV heads.

    Query head h belongs to KV head h / group. Kernels that divide by the number of KV heads were
    shipped (PSAL-POSTECH/ONNXim#34), and where the two numbers are equal nothing shows it. With one
    KV head there is nothing to map. A model's heads are what they are, so it is not asked.
    """
    subject = contract.subject
    if not isinstance(subject, Attention):
        return
    query, kv = subject.heads.query, subject.heads.kv
    if kv > 1 and query == kv * kv:
        yield (
            ("subject", "heads"),
            f"{query} query heads are {kv} for each of {kv} KV heads, so a kernel that divides by "
            f"the number of KV heads where it should divide by that of a group gives the same "
            f"bits; {2 * query} and {kv} would tell them apart",
        )
