"""``kvparity contract new``: a contract from a few options, or from answers on a terminal."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from kvparity.cli import say
from kvparity.cli.stop import StopError
from kvparity_contracts import json_schema, lint
from kvparity_contracts.files import load_whole
from kvparity_contracts.problems import ContractError
from kvparity_contracts.signatures import SIGNATURES
from kvparity_contracts.templates import (
    LIMITS,
    SCHEMA,
    Asked,
    CheckpointAsked,
    PairAsked,
    ServerAsked,
    contract_text,
)

_KINDS = "--prefill and --decode, --checkpoint, or --server"
EXAMPLES = """\
examples:
  kvparity contract new mine.yaml --prefill k.py:prefill --decode k.py:decode --heads 8,2,64
  kvparity contract new flash.yaml --prefill k.py:varlen --decode k.py:kvcache --heads 8,2,64 \\
      --signature flash-attn --page 16
  kvparity contract new model.yaml --checkpoint Qwen3-0.6B --prompts chats.jsonl
  kvparity contract new server.yaml --server http://127.0.0.1:8000 --vocabulary 151936
"""


def add_options(verb: argparse.ArgumentParser) -> None:
    """What may be said; the rest is asked on a terminal."""
    verb.add_argument("file", type=Path, metavar="FILE", help="the contract to write")
    verb.add_argument("--prefill", metavar="MODULE:FUNCTION", help="of a pair of kernels")
    verb.add_argument("--decode", metavar="MODULE:FUNCTION", help="of a pair of kernels")
    verb.add_argument("--heads", metavar="Q,KV,DIM", help="query heads, KV heads, width of one")
    verb.add_argument(
        "--signature", choices=sorted(SIGNATURES), help="whose functions a pair's are like"
    )
    verb.add_argument(
        "--page", type=int, metavar="N", help="slots of a page, for a pair that takes a block table"
    )
    verb.add_argument("--checkpoint", metavar="FOLDER", help="a checkpoint of transformers")
    verb.add_argument("--attention", default="sdpa", help="of a checkpoint (default: sdpa)")
    verb.add_argument("--server", metavar="URL", help="a running server")
    verb.add_argument("--api", choices=("vllm", "sglang"), default="vllm", help="of a server")
    verb.add_argument("--vocabulary", type=int, metavar="N", help="of a server's model")
    verb.add_argument("--name", help="of the contract (default: that of the file)")
    verb.add_argument(
        "--dtype",
        metavar="DTYPES",
        help="formats, by commas (default: a checkpoint's; of a pair float32,bfloat16; else "
        "bfloat16)",
    )
    verb.add_argument(
        "--lengths",
        metavar="TOKENS",
        help="lengths of prompts, by commas (default: for a pair 1,17,62,63,64,255)",
    )
    verb.add_argument(
        "--prompts",
        type=Path,
        metavar="PROMPTS",
        help="in place of lengths: a file of texts, or JSON Lines of texts or chats",
    )
    verb.add_argument(
        "--generate", type=int, metavar="N", help="tokens after each prompt (default: 3; 16)"
    )
    verb.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the contract, and the schema beside it for editors; nothing is written over."""
    file: Path = args.file
    if file.suffix not in (".yaml", ".yml"):
        raise StopError(f"{file}: expected the name of a file that ends in .yaml")
    if file.exists():
        raise StopError(f"{file} is there; give another name, or remove it")
    if args.prompts is not None and args.lengths is not None:
        raise StopError("--lengths means nothing with --prompts; leave out one of them")
    lengths = _numbers("--lengths", args.lengths) if args.lengths else None
    dtypes = _dtypes(args.dtype) if args.dtype else None
    asked = _asked(args)
    pair = isinstance(asked, PairAsked)
    if not pair and (given := [each for each in ("signature", "page") if getattr(args, each)]):
        raise StopError(f"--{given[0]}: of a pair; expected --prefill and --decode")
    text = contract_text(
        asked,
        name=args.name or _slug(file.stem),
        dtypes=dtypes or _usual_dtypes(asked),
        lengths=lengths or ([1, 17, 62, 63, 64, 255] if pair else [9, 33, 130]),
        generate=args.generate if args.generate is not None else 3 if pair else 16,
        prompts=None if args.prompts is None else os.path.relpath(args.prompts, file.parent),
    )
    made = [each for each in file.parents if not each.exists()]  # the innermost first
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
        written = [file]
        if not (schema := file.parent / SCHEMA).exists():
            schema.write_text(json_schema.text(), encoding="utf-8")
            written.append(schema)
    except OSError as error:
        raise StopError(f"{file} cannot be written: {error.strerror}") from error
    try:
        findings = lint(load_whole(file))
    except ContractError:  # it would be no contract
        for own in written:
            own.unlink()
        for folder in made:
            folder.rmdir()
        raise
    for each in findings:
        say.tell(each)
    say.tell(f"{file} is written; next: kvparity verify {shlex.quote(str(file))}")
    return 0


def _asked(args: argparse.Namespace) -> Asked:
    given = [bool(args.prefill or args.decode), bool(args.checkpoint), bool(args.server)]
    if sum(given) > 1:
        raise StopError(f"a contract has one subject: {_KINDS}")
    if not any(given):
        kind = _ask("what is it about: pair, checkpoint or server?", _KINDS, "pair")
        if kind not in ("pair", "checkpoint", "server"):
            raise StopError(f"found {kind!r}, expected pair, checkpoint or server")
        given = [kind == each for each in ("pair", "checkpoint", "server")]
    if given[0]:
        prefill = args.prefill or _ask("prefill, as file.py:function?", "--prefill")
        decode = args.decode or _ask("decode, as file.py:function?", "--decode")
        heads = args.heads or _ask("query heads, KV heads and width?", "--heads", "8,2,64")
        numbers = _numbers("--heads", heads)
        if len(numbers) != 3:
            raise StopError(f"--heads: found {heads!r}, expected three numbers, such as 8,2,64")
        return PairAsked(
            prefill, decode, (numbers[0], numbers[1], numbers[2]), args.signature, args.page
        )
    if given[1]:
        folder = args.checkpoint or _ask("the checkpoint's folder?", "--checkpoint")
        return CheckpointAsked(folder, args.attention)
    url = args.server or _ask("the server's address?", "--server", "http://127.0.0.1:8000")
    vocabulary = args.vocabulary
    if vocabulary is None:
        words = "vocab_size of its model's config.json?"
        vocabulary = _numbers("--vocabulary", _ask(words, "--vocabulary"))[0]
    return ServerAsked(args.api, url, vocabulary)


def _ask(question: str, option: str, default: str = "") -> str:
    """An answer from a terminal; elsewhere the option is missing."""
    if not sys.stdin.isatty():
        raise StopError(f"missing {option}; on a terminal it would be asked for")
    hint = f" [{default}]" if default else ""
    try:
        answer = input(f"{question}{hint} ").strip() or default
    except EOFError:
        answer = ""
    if not answer:
        raise StopError(f"no answer, and no {option}")
    return answer


def _numbers(option: str, text: str) -> list[int]:
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text):
        raise StopError(f"{option}: found {text!r}, expected numbers with commas between them")
    return [int(each) for each in text.split(",")]


def _usual_dtypes(asked: Asked) -> Sequence[str]:
    if isinstance(asked, PairAsked):
        return ["float32", "bfloat16"]
    found = _own_dtype(asked.folder) if isinstance(asked, CheckpointAsked) else None
    return [found or "bfloat16"]


def _dtypes(text: str) -> Sequence[str]:
    names = [each.strip() for each in text.split(",")]
    wrong = next((each for each in names if each not in LIMITS), None)
    if wrong is not None:
        raise StopError(f"--dtype: found {wrong!r}, expected one of {', '.join(LIMITS)}")
    return names


def _own_dtype(folder: str) -> str | None:
    """What the checkpoint's own configuration says, under either of its two names."""
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        found = config.get("dtype", config.get("torch_dtype"))
    except (OSError, ValueError, AttributeError):
        return None  # whether it is a checkpoint is said when the contract is read
    return found if found in LIMITS else None


def _slug(stem: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "contract"
