"""New contracts: the text of a file for a pair of kernels, a checkpoint or a running server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SCHEMA = "contract.schema.json"
"""The file that the first line names; editors read it."""
LIMITS = {"float32": "1.0e-5", "float16": "3.0e-3", "bfloat16": "2.0e-2"}
"""How far a pair may be from float64, as in the library's contracts."""


@dataclass(frozen=True)
class PairAsked:
    """Two functions, and the heads that they are called with: query, kv, width."""

    prefill: str
    decode: str
    heads: tuple[int, int, int]
    signature: str | None = None
    page: int | None = None


@dataclass(frozen=True)
class CheckpointAsked:
    """A folder of transformers, and the attention that it runs with."""

    folder: str
    attention: str = "sdpa"


@dataclass(frozen=True)
class ServerAsked:
    """A running server, and the size of its model's vocabulary."""

    api: str
    url: str
    vocabulary: int


Asked = PairAsked | CheckpointAsked | ServerAsked
FLOAT32 = "   # no rounding hides an order in float32; drop it if the kernels take none"


def contract_text(
    asked: Asked,
    *,
    name: str,
    dtypes: Sequence[str],
    lengths: Sequence[int],
    generate: int,
    prompts: str | None = None,
) -> str:
    """A whole contract. What stands in it is not checked: load it. ``prompts``: a file of them,
    relative to the contract, in place of prompts of these lengths.
    """
    if isinstance(asked, PairAsked):
        subject, about, body = _pair(asked, dtypes, max(lengths) + generate)
    elif isinstance(asked, CheckpointAsked):
        subject, about, body = _checkpoint(asked)
    else:
        subject, about, body = _server(asked)
    what = f"prompt_tokens: [{', '.join(map(str, lengths))}]"
    if prompts is not None:
        what = f"prompts: {{file: {_quoted(prompts)}}}"
    listed = dtypes[0] if len(dtypes) == 1 else f"[{', '.join(dtypes)}]"
    return "\n".join(
        [
            f"# yaml-language-server: $schema={SCHEMA}",
            "version: 1",
            f"name: {_quoted(name)}",
            f"about: {about}",
            "",
            "subject:",
            *(f"  {key}: {value}" for key, value in subject.items()),
            "",
            "numerics:",
            f"  execution: {listed}{FLOAT32 * (isinstance(asked, PairAsked) and len(dtypes) > 1)}",
            *([] if isinstance(asked, ServerAsked) else ["  tf32: false"]),
            "",
            "workloads:",
            f"  - {{name: prompts, {what}, generate: {generate}}}",
            "",
            *body,
            "",
        ]
    )


Parts = tuple[Mapping[str, str], str, list[str]]


def _pair(asked: PairAsked, dtypes: Sequence[str], longest: int) -> Parts:
    query, kv, dim = asked.heads
    subject = {
        "kind": "attention",
        "prefill": _quoted(asked.prefill),
        "decode": _quoted(asked.decode),
        "heads": f"{{query: {query}, kv: {kv}, dim: {dim}}}",
    }
    if asked.signature is not None:
        subject["signature"] = f"{asked.signature:<20} # called as that project documents it"
    if asked.page is not None:
        subject["page"] = f"{asked.page:<25} # slots; decode gets a block table"
    chunk = [f"chunked({min(24, longest - 1)})"] if longest > 1 else []
    moved = ["reset"] if asked.page is not None else []  # to other pages
    paths = ["decode", "batched", "permuted", *chunk, *moved]
    limits = [f"      {each}: {{max_abs: {LIMITS[each]}}}" for each in dtypes]
    body = [
        "checks:",
        "  - name: decode reduces like prefill",
        "    relation: invariance             # bits; takes no tolerance",
        f"    paths: [{', '.join(paths)}]",
        "  - name: close to float64           # a pair can agree with itself and be wrong",
        "    relation: accuracy",
        "    limits:",
        *limits,
        "",
        "controls: all                        # planted defects that the checks must catch",
    ]
    return subject, "My decode reduces like my prefill.", body


def _checkpoint(asked: CheckpointAsked) -> Parts:
    subject = {
        "kind": "transformers",
        "checkpoint": _quoted(asked.folder),
        "attention": asked.attention,
    }
    body = [
        "checks:",
        "  - name: generate agrees with one forward pass",
        "    relation: invariance             # bits; takes no tolerance",
        "    reference: prefill",
        "    paths: [generate]",
        "",
        "controls: [position-off-by-one, stale-slot, narrow-cache, retokenised, unequal-lengths]",
    ]
    return subject, "generate() gives the logprobs of one forward pass over the same ids.", body


def _server(asked: ServerAsked) -> Parts:
    subject = {
        "kind": "server",
        "api": asked.api,
        "url": _quoted(asked.url),
        "vocabulary": str(asked.vocabulary),
    }
    body = [
        "checks:",
        "  - name: decode agrees with prefill",
        "    relation: invariance             # bits; takes no tolerance",
        "    reference: prefill",
        "    paths: [decode, batched]",
        "",
        "controls: [retokenised, id-reported-as-another, unequal-lengths]",
    ]
    return subject, "A server gives its own logprobs again when it scores the same ids.", body


def _quoted(text: str) -> str:
    """As JSON, and so as YAML, writes it: whatever a path or an address holds."""
    return json.dumps(text, ensure_ascii=False)
