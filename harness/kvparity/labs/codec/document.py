"""The document of ``kvparity codec``; its JSON is ``dataclasses.asdict`` of it."""

from __future__ import annotations

from dataclasses import dataclass

from kvparity.core.environment import EnvironmentDocument
from kvparity.labs.codec.budget import LayerChoice
from kvparity.labs.codec.errors import LayerError
from kvparity.labs.codec.layers import Kind, LayerKV
from kvparity.labs.codec.protocol import Stage
from kvparity.labs.codec.runs import CodedRun
from kvparity.labs.codec.sizes import Size
from kvparity.labs.codec.stages import StageShare
from kvparity_contracts.json_types import JsonObject


@dataclass(frozen=True)
class CodedDepth(CodedRun):
    """The drift with the first ``layers`` layers coded."""

    layers: int


@dataclass(frozen=True)
class CodedLayer:
    """A layer that stores; ``alone``: the drift with it alone coded."""

    layer: int
    model_layer: int
    read_by: tuple[int, ...]
    kind: Kind
    window: int | None
    kv_heads: int
    head_dim: int
    bytes_per_token: float
    error: LayerError
    alone: CodedRun


@dataclass(frozen=True)
class TokenBytes:
    """Bytes of one token in all layers that store."""

    coded: float
    execution: int
    ratio: float


@dataclass(frozen=True)
class ContextBytes:
    """Bytes at another length, calculated."""

    length: int
    execution: int
    coded: int
    picked: int


@dataclass(frozen=True)
class CodecReport:
    """All about one codec."""

    name: str
    stages: tuple[Stage, ...]
    tokens_coded_alone: bool
    stages_explain_all: bool
    bytes_per_token: TokenBytes
    layers: tuple[CodedLayer, ...]
    depth: tuple[CodedDepth, ...]
    stage_shares: tuple[StageShare, ...]
    all_stages_exact: CodedRun
    budget: LayerChoice | None
    sizes: tuple[Size, ...]
    contexts: tuple[ContextBytes, ...]


@dataclass(frozen=True)
class CodecSequence:
    """A sequence that was run."""

    id: str
    prompt: int
    ids: tuple[int, ...]


@dataclass(frozen=True)
class ExaminedRun:
    """What was run."""

    workload: str
    sequences: tuple[CodecSequence, ...]
    tokens: int
    temperature: float
    execution: str
    kv_cache: str
    dequantised_to: str


@dataclass(frozen=True, kw_only=True)
class PlannedLayer(LayerKV):
    """One layer of the model, with its number."""

    layer: int


@dataclass(frozen=True)
class CodecDocument:
    """The whole."""

    schema_version: int
    contract: dict[str, str]
    environment: EnvironmentDocument
    subject: JsonObject
    run: ExaminedRun
    layer_plan: tuple[PlannedLayer, ...]
    codecs: tuple[CodecReport, ...]
