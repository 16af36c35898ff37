"""The file that a case keeps: whether it is whole, and about that case."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from safetensors import SafetensorError, safe_open

from kvparity.plan.results import CaseLine
from kvparity.relations.registry import RELATIONS


def damage(folder: Path, line: CaseLine) -> str | None:
    """What is wrong with the file that a case's line names as ``evidence``, or None.

    Only its header is read, which says the size of the whole. A case of accuracy that holds, and
    one of bits or of a cache that differs, has such a file.
    """
    name, kept = line.evidence, RELATIONS[line.relation].file
    if name is None:
        wanted = kept.when == line.verdict
        return f"it {line.verdict}, and names no file in {kept.folder}/" if wanted else None
    own = f"{kept.folder}/{line.id}.safetensors"
    if name != own:
        return f"its evidence is {name!r}, and {own} is its file"
    path = folder / name
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return f"{name} is not a regular file"
        with safe_open(str(path), "np") as file:
            missing = set(kept.tensors) - set(file.keys())
            index = json.loads((file.metadata() or {}).get("index", "null"))
    except FileNotFoundError:
        return f"{name} is missing"
    except (OSError, SafetensorError, ValueError) as error:
        return f"{name} cannot be read ({error})"
    if missing:
        return f"{name} has no {sorted(missing)[0]}"
    if kept.by_token and _length(index) != line.tokens:
        return f"{name} holds {_length(index)} tokens, and {line.tokens} were compared"
    return None


def _length(index: object) -> int | None:
    return len(index) if isinstance(index, list) else None
