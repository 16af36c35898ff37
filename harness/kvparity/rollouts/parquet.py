"""kvparity's own file as Parquet: a row for each sequence, with the fields of its lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from kvparity.rollouts.native import FORMAT, VERSION, line_of
from kvparity.rollouts.record import FilePlace, Rollout, RolloutError
from kvparity_contracts.json_types import JsonObject, JsonValue

ROWS = 256
"""Sequences that are held while writing."""
MISSING = 'pyarrow is not installed: pip install "kvparity[rollouts]"'


def documents(path: Path) -> Iterator[tuple[FilePlace, JsonObject]]:
    """The header, if the file is kvparity's, and every row.

    Raises:
        RolloutError: pyarrow is missing, or the file is damaged.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise RolloutError(f"{path} is Parquet, and {MISSING}") from None
    try:
        file = ParquetFile(path)
        facts = file.schema_arrow.metadata or {}
        if FORMAT.encode() in facts:
            yield FilePlace(path), {"format": FORMAT, "version": int(facts[FORMAT.encode()])}
        number = 0
        for batch in file.iter_batches(batch_size=ROWS):
            for each in batch.to_pylist():
                yield FilePlace(path, number, lines=False), each
                number += 1
    except (ArrowException, OSError, ValueError) as error:
        raise RolloutError(f"{path} is no whole Parquet file: {error}") from None


def write_parquet(rollouts: Iterable[Rollout], path: str | Path) -> None:
    """All sequences into a new file; ``read_rollouts`` reads it again, bit for bit.

    Raises:
        RolloutError: pyarrow is missing, or ``path`` exists or cannot be written.
    """
    try:
        import pyarrow as arrow
        from pyarrow.parquet import ParquetWriter
    except ImportError:
        raise RolloutError(MISSING) from None
    number = arrow.list_(arrow.float32())
    ids = arrow.list_(arrow.int64())
    schema = arrow.schema(
        {
            "sequence": arrow.string(),
            "prompt_ids": ids,
            "response_ids": ids,
            "logprobs": number,
            "mask": arrow.list_(arrow.int64()),
            "trainer_logprobs": number,
            "prompt_logprobs": number,
            "temperature": arrow.float64(),
            "top_p": arrow.float64(),
            "processed": arrow.bool_(),
            "weight_versions": arrow.list_(arrow.string()),
            "routes": arrow.list_(arrow.list_(ids)),
        },
        metadata={FORMAT: str(VERSION)},
    )
    if Path(path).exists():
        raise RolloutError(f"{path} exists; expected a new file")
    try:
        with ParquetWriter(path, schema) as writer:
            for rows in _batches(rollouts):
                writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
    except OSError as error:
        raise RolloutError(f"{path} cannot be written: {error}") from error


def _batches(rollouts: Iterable[Rollout]) -> Iterator[list[JsonObject]]:
    rows: list[JsonObject] = []
    for each in rollouts:
        row = line_of(each).model_dump()
        rows.append({name: _floats(value) for name, value in row.items()})
        if len(rows) == ROWS:
            yield rows
            rows = []
    yield rows


def _floats(value: JsonValue) -> JsonValue:
    """Names of numbers that JSON lacks are numbers here."""
    if isinstance(value, list):
        return [float(it) if it in ("nan", "inf", "-inf") else it for it in value]
    return value
