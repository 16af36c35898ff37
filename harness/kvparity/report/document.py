"""``run.json``: the report of a run as values, written and read by these models only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, SerializeAsAny
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from kvparity.core.environment import CudaEnvironment, Environment
from kvparity.core.values import LIST, Count, Json, Seconds, Value
from kvparity.plan.results import CaseLine, ControlLine, Outcome
from kvparity.relations.registry import RELATIONS


def _by_relation(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    relation = value.get("relation")
    if not isinstance(relation, str) or relation not in RELATIONS:
        raise ValueError(f"relation is {relation!r}, and should be one of {', '.join(RELATIONS)}")
    return RELATIONS[relation].line.model_validate(value)


class _OneOfRelations:
    """In a JSON schema: the line of any relation."""

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, handler: Callable[[CoreSchema], JsonSchemaValue]
    ) -> JsonSchemaValue:
        models = dict.fromkeys(relation.line for relation in RELATIONS.values())
        return {"oneOf": [handler(model.__pydantic_core_schema__) for model in models]}


AnyCase = Annotated[SerializeAsAny[CaseLine], BeforeValidator(_by_relation), _OneOfRelations()]
"""The line of a case, by the relation that it names."""


class ContractOfRun(Value):
    """What the run was about."""

    name: str
    """its name"""
    path: str
    """the file"""
    sha256: str
    """hash of the file's bytes"""
    seed: int
    """its seed"""
    sources: dict[str, str] | None = None
    """by name: the SHA-256 that its own source files, prompts and recordings had when the run
    began; of installed packages none. Null in runs of earlier versions"""


class OmittedPath(Value):
    """A path that would show nothing."""

    workload: str
    """workload of a path that would show nothing and was not run"""
    path: str
    """that path"""
    reason: str
    """why it would show nothing"""


class CheckOfRun(Value):
    """One check: its verdict, and what it rests on."""

    name: str
    """name in the contract"""
    relation: str
    """`invariance`, `accuracy`, `cache`, `liveness`, `trace`, `order`, `audit`,
    `parity` or `reproduction`"""
    verdict: Outcome
    """`holds`, `differs`, `void`, or `error`: a model whose own code does not compute in float64
    has no reference for its accuracy; the other checks are judged"""
    reason: str
    """why"""
    cases: Annotated[tuple[AnyCase, ...], LIST]
    """its cases, in the order of the plan"""
    omitted: Annotated[tuple[OmittedPath, ...], LIST]
    """paths that were not run"""


class UnplantedControl(Value):
    """A control that was not planted."""

    control: str
    """a control that was not planted"""
    relation: str
    """the relation that it was planned for"""
    reason: str
    """why not"""
    asked: bool
    """whether the contract names it; then the verdict is void"""


class UnlikeRow(Value):
    """A path of which a fresh process gave other bits."""

    unit: str
    """a unit in which a fresh process gave other bits than the run"""
    path: str
    """of this path; the cases that depend on it differ"""
    row: str
    """the first such row"""


class Recheck(Value):
    """What fresh processes found."""

    paths: Count
    """paths of which some rows were recomputed, in fresh processes, one for each side of each unit,
    which never ran the other side"""
    of: Count
    """how many paths the cases that hold depend on. The cheapest are recomputed, as long as all
    together take at most a tenth of the run's tokens, or 256 tokens if that is more"""
    rows: Count
    """rows that were recomputed"""
    differing: Annotated[tuple[UnlikeRow, ...], LIST]
    """what fresh processes computed otherwise"""
    skipped: str | None
    """why none was recomputed, or null"""


class TextIds(Value):
    """Texts that became ids."""

    by: str
    """what they were encoded by"""
    ids: dict[str, Annotated[tuple[Annotated[tuple[Count, ...], LIST], ...], LIST]]
    """of every text, by workload"""


class LocatedCase(Value):
    """Where a case parts, or why that is not known."""

    case: str | None
    """a case that was [located](locate.md), the first of its check that differs; null where none
    can be"""
    words: str
    """what was found, in lines, or why nothing was"""
    file: str | None
    """the whole account, in this folder; null if there is none"""


class RunReport(Value):
    """The whole of ``run.json``."""

    schema_version: Literal[2]
    """2; increased when a field changes its meaning or is removed: [below](#schemas)"""
    verdict: Outcome
    """`holds`, `differs`, `void` or `error`: the worst of the checks"""
    contract: ContractOfRun
    """the contract"""
    command: str
    """the command line that began the run"""
    run_dir: str
    """this folder"""
    environment: CudaEnvironment | Environment
    """what it ran with"""
    subject: Json
    """what was really loaded, as the subject describes it: below"""
    kernels: dict[str, Json]
    """each Triton kernel of this project that was launched: constants, dtypes, options, hash of the
    compiled code (`interpreter` on a CPU)"""
    checks: Annotated[tuple[CheckOfRun, ...], LIST]
    """the checks, in the order of the contract"""
    controls: Annotated[tuple[ControlLine, ...], LIST]
    """the planted controls"""
    unplanted: Annotated[tuple[UnplantedControl, ...], LIST]
    """the others"""
    recheck: Recheck
    """what fresh processes found"""
    tiles: Json
    """the [tiles](tiles.md) that this project's kernels used: `arch`, `triton`, `in_force` by
    format, `words`; the `verdict` of their check before the first case (`base`: only the base, so
    nothing to check; else `holds`), its `answers` and `controls`; `broken`, which is empty: a row
    that does not hold ends the run"""
    texts: TextIds | None
    """null without texts; else `by` what they were encoded (the checkpoint's tokenizer, with its
    chat template or without; or byte by byte), and the `ids` of every text, by workload"""
    located: Annotated[tuple[LocatedCase, ...], LIST] = ()
    """only in a run that differs, unless `--no-locate` was given"""
    jobs: str | None = None
    """how many processes ran, and by what: as asked for, by cores or by memory; null in the calling
    process, and in runs of earlier versions"""
    elapsed_s: Seconds
    """seconds; for a resumed run, those of its last part"""
