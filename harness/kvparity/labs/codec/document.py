"""The document of ``kvparity codec``, as typed JSON objects."""

from __future__ import annotations

from typing import Literal, TypedDict

from kvparity.core.environment import EnvironmentDocument
from kvparity_contracts.json_types import JsonObject

Measure = Literal["approx_kl0", "max_abs_dlogp"]


class DriftJson(TypedDict):
    """A run with coded layers against the exact one; see :class:`.runs.CodedRun`."""

    tokens: int
    differing: int
    max_abs_dlogp: float
    approx_kl0: float
    clipfrac0: float


class DepthJson(DriftJson):
    """The drift with the first ``layers`` layers coded."""

    layers: int


class ErrorJson(TypedDict):
    """See :class:`.errors.Error`."""

    rel_rms: float
    max_abs: float
    peak: float


class LayerErrorJson(TypedDict):
    """Of keys and of values."""

    k: ErrorJson
    v: ErrorJson


class LayerJson(TypedDict):
    """A layer that stores; ``alone``: the drift with it alone coded."""

    layer: int
    model_layer: int
    read_by: list[int]
    kind: str
    window: int | None
    kv_heads: int
    head_dim: int
    bytes_per_token: float
    error: LayerErrorJson
    alone: DriftJson


class StageJson(TypedDict):
    """See :class:`.stages.StageShare`."""

    stage: str
    rel_rms_without: float
    rel_rms_alone: float
    share_of_error: float | None
    without: DriftJson | None
    share_of_drift: float | None
    reason: str | None


class BudgetJson(TypedDict):
    """See :class:`.budget.LayerChoice`."""

    measure: Measure
    limit: float
    exact_layers: list[int]
    coded_layers: list[int]
    measured: DriftJson
    next_layer: int | None
    with_next_layer: DriftJson | None


class BytesJson(TypedDict):
    """Bytes of one token in all layers that store."""

    coded: float
    execution: int
    ratio: float


class SizeJson(TypedDict):
    """Bytes of one sequence of ``length`` tokens."""

    length: int
    calculated: int
    measured: int


class ContextJson(TypedDict):
    """Bytes at another length, calculated."""

    length: int
    execution: int
    coded: int
    picked: int


class CodecJson(TypedDict):
    """All about one codec."""

    name: str
    stages: list[str]
    tokens_coded_alone: bool
    stages_explain_all: bool
    bytes_per_token: BytesJson
    layers: list[LayerJson]
    depth: list[DepthJson]
    stage_shares: list[StageJson]
    all_stages_exact: DriftJson
    budget: BudgetJson | None
    sizes: list[SizeJson]
    contexts: list[ContextJson]


class SequenceJson(TypedDict):
    """A sequence that was run."""

    id: str
    prompt: int
    ids: list[int]


class RunJson(TypedDict):
    """What was run."""

    workload: str
    sequences: list[SequenceJson]
    tokens: int
    temperature: float
    execution: str
    kv_cache: str
    dequantised_to: str


class PlannedLayerJson(TypedDict):
    """One layer of the model; see :class:`.layers.LayerKV`."""

    layer: int
    kind: str
    owner: int
    kv_heads: int
    head_dim: int
    window: int


class CodecDocument(TypedDict):
    """The whole."""

    schema_version: int
    contract: dict[str, str]
    environment: EnvironmentDocument
    subject: JsonObject
    run: RunJson
    layer_plan: list[PlannedLayerJson]
    codecs: list[CodecJson]
