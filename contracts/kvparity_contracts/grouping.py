"""Numbers of a contract that hide a wrong mapping: of query heads to KV heads, of keys to rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kvparity_contracts.base import KeyPath
from kvparity_contracts.contract import Contract
from kvparity_contracts.features import FEW, has
from kvparity_contracts.subjects import AnySubject, Attention, Decoder, Transformers


def hidden_mapping(contract: Contract) -> Iterator[tuple[KeyPath, str]]:
    """As many query heads in a group as there are KV heads, where the contract chose them.

    Query head h belongs to KV head h / group. Kernels that divide by the number of KV heads were
    shipped (PSAL-POSTECH/ONNXim#34), and where the two numbers are equal nothing shows it. With one
    KV head there is nothing to map. The heads of a preset or a checkpoint are what they are.
    """
    for at, query, kv in _heads(contract.subject):
        if kv > 1 and query == kv * kv:
            yield (
                at,
                f"{query} query heads are {kv} for each of {kv} KV heads, so a kernel that divides "
                f"by the number of KV heads where it should divide by that of a group gives the "
                f"same bits; {2 * query} and {kv} would tell them apart",
            )


def one_encoder(contract: Contract) -> Iterator[tuple[KeyPath, str]]:
    """Encoders of about one length, as a model has that pads them (vllm-project/vllm#29268)."""
    subject = contract.subject
    if isinstance(subject, Attention) and subject.cross is not None and not has(contract, "cross"):
        fewest, most = subject.cross
        yield (
            ("subject", "cross"),
            f"sequences that run together may all have as many keys ({fewest} to {most}), so "
            "nothing shows whether a kernel takes the number of another; "
            f"{fewest} to {fewest + FEW - 1} would do",
        )


def _heads(subject: AnySubject) -> Iterator[tuple[KeyPath, int, int]]:
    """Where a contract states query heads, how many, and over how many KV heads."""
    if isinstance(subject, Attention):
        yield ("subject", "heads"), subject.heads.query, subject.heads.kv
    elif isinstance(subject, Decoder):
        if subject.config is not None:
            yield ("subject", "config", "heads"), subject.config.heads, subject.config.kv_heads
    elif isinstance(subject, Transformers) and subject.config is not None:
        yield from _parts(("subject", "config"), subject.config)


def _parts(at: KeyPath, keys: Mapping[str, object]) -> Iterator[tuple[KeyPath, int, int]]:
    """Of a configuration of transformers, and of those inside it (``text_config``)."""
    query, kv = keys.get("num_attention_heads"), keys.get("num_key_value_heads")
    if type(query) is int and type(kv) is int:
        yield (*at, "num_attention_heads"), query, kv
    for name, value in keys.items():
        if isinstance(value, Mapping):
            yield from _parts((*at, name), value)
