"""All compared tokens as a Parquet file: a row for each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kvparity.rollouts.parquet import MISSING
from kvparity.rollouts.record import RolloutError
from kvparity.rollouts.tokens import Tokens

ROWS = 1 << 17
"""Tokens of a row group: as many are held as rows at once."""


def write_tokens(tokens: Tokens, path: Path) -> None:
    """A new file, in the order of the recording: ``sequence``, ``position``, ``token_id`` (-1: not
    recorded), ``rollout`` and ``trainer`` (float32, their bits), ``d`` (float64), ``equal_bits``.

    Raises:
        RolloutError: pyarrow is missing, or ``path`` exists or cannot be written.
    """
    try:
        import pyarrow as arrow
        from pyarrow.parquet import ParquetWriter
    except ImportError:
        raise RolloutError(MISSING) from None
    schema = arrow.schema(
        {
            "sequence": arrow.string(),
            "position": arrow.int32(),
            "token_id": arrow.int32(),
            "rollout": arrow.float32(),
            "trainer": arrow.float32(),
            "d": arrow.float64(),
            "equal_bits": arrow.bool_(),
        }
    )
    names = arrow.array(tokens.names, arrow.string())
    try:
        with path.open("xb") as file, ParquetWriter(file, schema) as writer:
            for start in range(0, tokens.count, ROWS):
                part = slice(start, min(start + ROWS, tokens.count))
                of = np.searchsorted(tokens.starts, np.arange(start, part.stop), side="right") - 1
                columns = (
                    names.take(arrow.array(of)),
                    tokens.positions[part],
                    tokens.token_ids[part],
                    tokens.rollout[part],
                    tokens.trainer[part],
                    tokens.d[part],
                    tokens.equal[part],
                )
                writer.write_table(arrow.table(list(map(arrow.array, columns)), schema=schema))
    except FileExistsError:
        raise RolloutError(f"{path} exists; expected a new file") from None
    except OSError as error:
        raise RolloutError(f"{path} cannot be written: {error.strerror or error}") from error
