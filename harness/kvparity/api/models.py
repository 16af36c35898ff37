"""A transformers model of the caller's, checked without a file: generate() against one forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Protocol

import torch
from torch import nn

from kvparity.api.kept import lost
from kvparity.api.reports import Report
from kvparity.api.written import named, verified, written
from kvparity.core.errors import RunFolderError
from kvparity.core.raised import in_one_line
from kvparity.run.verify import TIMEOUT_S
from kvparity.subjects.hf.loading import from_folder
from kvparity_contracts.json_types import JsonObject, JsonValue
from kvparity_kernels.relied.torch import hooked


class Tokenizer(Protocol):
    """What is used of a tokenizer of transformers."""

    def save_pretrained(self, folder: str) -> object:
        """Write it into a folder."""


def check_model(
    model: nn.Module,
    tokenizer: Tokenizer | None,
    prompts: Sequence[str] | Sequence[Sequence[int]],
    *,
    generate: int = 16,
    paths: Sequence[str] = ("generate",),
    temperatures: Sequence[float] = (1.0,),
    controls: str | Sequence[str] = "all",
    seed: int = 0,
    name: str = "model",
    device: str | None = None,
    jobs: int | None = None,
    run_dir: str | Path | None = None,
    timeout: float = TIMEOUT_S,
) -> Report:
    """Does generate() give each token the logprob bits that one forward pass gives?

    The model is saved beside the run, in ``<run_dir>-model``, and loaded from there: what is
    verified can be verified again, by processes of their own and by ``kvparity replay``.

    Args:
        model: a causal language model of transformers, in eval mode, its parameters in one dtype.
        tokenizer: its tokenizer; None where prompts are token ids.
        prompts: texts, or lists of token ids.
        generate: tokens drawn after each prompt.
        paths: compared with ``prefill``.
        temperatures: at which logprobs are compared.
        controls, seed, name, device, jobs, run_dir, timeout: as :func:`kvparity.check_pair`; left
            out, ``device`` is the model's.

    Raises:
        ValueError: an argument means nothing, or the saved model would not be this one.
        RunFolderError: the folder of the model, or of the run, is there.
        UnsupportedError, SubjectError: see there.
    """
    attention, dtype, where = _facts(model)
    texts = _texts(prompts, tokenizer)

    def document(folder: Path) -> JsonObject:
        given: JsonValue = [each if isinstance(each, str) else list(each) for each in prompts]
        kind = "texts" if texts else "prompts"
        check = "generate agrees with one forward pass"
        return {
            "version": 1,
            "name": named(name),
            "seed": seed,
            "subject": {
                "kind": "transformers",
                "checkpoint": _saved_in(folder).name,
                "attention": attention,
            },
            "numerics": {"execution": dtype, "temperatures": list(temperatures)},
            "workloads": [{"name": "prompts", kind: given, "generate": generate}],
            "checks": [{"name": check, "relation": "invariance", "paths": list(paths)}],
            "controls": controls if isinstance(controls, str) else list(controls),
        }

    with written(document, caller="check_model", name=name, run_dir=run_dir) as run:
        saved = _saved_in(run.folder)
        try:
            saved.mkdir()
        except FileExistsError:
            raise RunFolderError(
                f"{saved} is there, and the model is saved there; give another run_dir"
            ) from None
        try:
            _save(model, tokenizer, saved)
            loaded = from_folder(
                saved, dtype=getattr(torch, dtype), attention=attention, device=torch.device("cpu")
            )
            for wrong in lost(model, loaded.model):
                raise ValueError(f"model: {wrong}; a checkpoint would be another model")
            return verified(run, device=device or where, timeout=timeout, jobs=jobs)
        finally:
            if not run.folder.is_dir() or not any(run.folder.iterdir()):  # the run was refused
                rmtree(saved)


def _save(model: nn.Module, tokenizer: Tokenizer | None, folder: Path) -> None:
    """Raises ``ValueError``: transformers does not save them."""
    for what, each in (("model", model), ("tokenizer", tokenizer)):
        if each is None:
            continue
        try:
            each.save_pretrained(str(folder))  # type: ignore[operator] # _facts has asked
        except Exception as error:  # other people's code, on whatever they hold
            reason = in_one_line(error)
            raise ValueError(f"{what}: it cannot be saved: {reason}") from error


def _saved_in(folder: Path) -> Path:
    return folder.parent / f"{folder.name}-model"


def _texts(prompts: Sequence[str] | Sequence[Sequence[int]], tokenizer: object) -> bool:
    """Whether prompts are texts.

    Raises:
        ValueError: there are none, they are mixed, or texts have no tokenizer.
    """
    each_listed = isinstance(prompts, list | tuple) and all(
        isinstance(each, str | list | tuple | range) for each in prompts
    )
    if not each_listed or not prompts:
        expected = "expected a list of texts, or of lists of token ids"
        raise ValueError(f"prompts: found {prompts!r}, {expected}")
    kinds = {isinstance(each, str) for each in prompts}
    if len(kinds) > 1:
        raise ValueError("prompts: found texts and token ids, expected one of them")
    texts = kinds == {True}
    if texts and tokenizer is None:
        raise ValueError("tokenizer: found None, expected one: prompts are texts")
    return texts


def _facts(model: nn.Module) -> tuple[str, str, str]:
    """Its attention, dtype and device.

    Raises:
        ValueError: it is none of transformers', or what is saved of it would compute otherwise.
    """
    config = getattr(model, "config", None)
    attention = getattr(config, "_attn_implementation", None)
    decoder = not getattr(config, "is_encoder_decoder", False)
    if not isinstance(attention, str) or not hasattr(model, "generate") or not decoder:
        expected = "expected a causal language model of transformers"
        raise ValueError(f"model: found {type(model).__name__}, {expected}")
    for wrong in _unsaved(model):
        raise ValueError(f"model: {wrong}")
    (dtype,) = {each.dtype for each in model.parameters() if each.is_floating_point()}
    return attention, str(dtype).removeprefix("torch."), next(model.parameters()).device.type


def _unsaved(model: nn.Module) -> Iterator[str]:
    """What no checkpoint of transformers keeps."""
    if not type(model).__module__.startswith("transformers."):
        yield (
            f"{type(model).__name__} is a class of {type(model).__module__}, which is not kept by "
            "its checkpoint; expected one of transformers'. Merge an adapter first"
        )
    if any(module.training for module in model.modules()):
        yield "it is in train mode; expected model.eval()"
    dtypes = sorted({str(each.dtype) for each in model.parameters() if each.is_floating_point()})
    if len(dtypes) != 1:
        yield f"its parameters have the dtypes {', '.join(dtypes)}; expected one"
    devices = sorted({str(each.device) for each in model.parameters()})
    if len(devices) != 1:
        yield f"its parameters are on {', '.join(devices)}; expected one device"
    if devices == ["meta"]:
        yield "its parameters are on meta, so it has no weights"
    for name, module in model.named_modules():
        if hooked(module):
            yield f"module {name or 'itself'} has a forward hook, which no checkpoint keeps"
        if "forward" in vars(module):
            yield f"module {name or 'itself'} has a forward of its own, which is not kept"
        if type(module).__module__.split(".")[0] not in ("torch", "transformers"):
            yield f"module {name} is a {type(module).__name__}, which its checkpoint does not keep"
