"""What is relied on in other libraries stands in one place, and where it is gone that is said."""

from __future__ import annotations

import ast
import runpy
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from tiny_transformers import family, needs, one_by_one, rows, tiny
from transformers_families import FAMILIES

from kvparity.api.patched import patched
from kvparity.cli.main import main
from kvparity.controls.transformers import window_one_short
from kvparity.core.exit_codes import ExitCode
from kvparity.core.relied import transformers as hf
from kvparity.plan.schedule import Layout, Member, Span
from kvparity.relations.audit import build
from kvparity.subjects.export import recipe
from kvparity.subjects.export.compiling import Compiled
from kvparity.subjects.hf import config_keys
from kvparity.subjects.hf.run_counts import Observation, observing
from kvparity.tiles import measure
from kvparity_kernels import relied
from kvparity_kernels.relied import GoneError, ReliedItem
from kvparity_kernels.relied import torch as own_torch
from kvparity_kernels.relied import triton as own_triton
from kvparity_kernels.versions import TESTED

ROOT = Path(__file__).parents[4]


def items(module: ModuleType) -> Iterator[ReliedItem]:
    for value in vars(module).values():
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, ReliedItem):
                yield each


EVERY = [item for module in (own_torch, own_triton, hf) for item in items(module)]
NAME: Callable[[ReliedItem], str] = lambda item: item.names[0]  # noqa: E731


def sentence(item: ReliedItem) -> str:
    """All of it: the library, its version, what is gone, what for, what was tested."""
    version = metadata.version(item.library)
    return (
        f"{item.library} {version} no longer has `{item.names[0].replace(':', '.')}`, which "
        f"kvparity uses to {item.use}; tested with {TESTED[item.library]}"
    )


@pytest.mark.parametrize("item", EVERY, ids=NAME)
def test_everything_is_here_and_said_in_words_where_it_is_gone(
    item: ReliedItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():  # of what inductor imports
        warnings.simplefilter("ignore", DeprecationWarning)
        assert item.get() is not None
    monkeypatch.setattr(relied, "import_module", lambda name: SimpleNamespace())
    with pytest.raises(GoneError) as caught:
        item.get()
    assert str(caught.value) == sentence(item)


def _overlay() -> None:
    session = window_one_short(family("mistral", "eager")).session([Member("m", 9)], Layout())
    list(session.forward((Span(0, 0, 8, rows_from=8),), [[1] * 8]))
    list(session.forward((Span(0, 8, 9, rows_from=8, decode=True),), [[1]]))


def _observe() -> None:
    with observing(Observation()):
        pass


CONSUMERS: dict[ReliedItem, Callable[[], Any]] = {
    own_torch.HAS_KERNEL: lambda: own_torch.composite.__wrapped__(torch.ops.aten.relu.default),
    own_torch.BUILTINS: lambda: list(patched(torch.nn.Identity())),
    own_torch.INDUCTOR: lambda: Compiled(torch.sin)(torch.ones(2)),
    own_triton.HOOKS[0]: own_triton.check_hooks,
    own_triton.NVDISASM: lambda: build.disassemble.__wrapped__(b""),
    own_triton.PTXAS: lambda: build.ptxas("sm_90"),
    own_triton.REFUSALS[0]: lambda: measure._of_tiles(ValueError()),
    hf.ATTENTIONS: _observe,
    hf.MASKS: lambda: rows(tiny("kvparity"), [4], one_by_one(4, 4), Layout()),
    hf.OVERLAY: _overlay,
    hf.MODEL_TYPES: lambda: config_keys.check("llama", {}),
    hf.EXPORTABLE: lambda: recipe.export(tiny("sdpa", "static").model, 8, rows=1),
}


@pytest.mark.parametrize("item", CONSUMERS, ids=NAME)
def test_who_uses_it_hands_the_sentence_on(
    item: ReliedItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = relied.import_module
    modules = {name.partition(":")[0] for name in item.names}
    for attention in ("kvparity", "sdpa"):
        tiny(attention, "static" if attention == "sdpa" else "dynamic")  # loaded before it is gone
    family("mistral", "eager")

    def without(name: str) -> Any:
        return SimpleNamespace() if name in modules else real(name)

    monkeypatch.setattr(relied, "import_module", without)
    with pytest.raises(Exception, match="no longer has") as caught:
        CONSUMERS[item]()
    assert sentence(item) in str(caught.value)


def test_what_is_an_attribute_of_something_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = SimpleNamespace(config=SimpleNamespace(), __dict__={})
    with pytest.raises(GoneError, match="`_attn_implementation` of SimpleNamespace, which"):
        hf.attention_of(empty)
    with pytest.raises(GoneError, match=r"`_schema` of SimpleNamespace.*tested with"):
        own_torch.schema(empty)
    with (
        pytest.raises(GoneError, match="`_forward_pre_hooks` of SimpleNamespace"),
        own_torch.without_pre_hooks(empty),
    ):
        pass
    with pytest.raises(GoneError, match="`_changes` of SimpleNamespace"):
        own_triton.changes(empty)
    monkeypatch.setattr(hf, "ATTENTIONS", SimpleNamespace(get=lambda: empty))
    with (
        pytest.raises(GoneError, match="`_local_mapping` of SimpleNamespace"),
        hf.attention_functions(lambda name, function: function),
    ):
        pass


@pytest.mark.parametrize(
    "module", ["torch.utils._python_dispatch", "torch.utils._pytree", "torch._ops"]
)
def test_what_is_needed_at_once_is_said_when_it_is_loaded(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runpy.run_path(own_torch.__file__)  # the control
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(GoneError, match=rf"torch .* no longer has .*`{module}.*tested with"):
        runpy.run_path(own_torch.__file__)


def test_other_parameters_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        relied,
        "import_module",
        lambda name: SimpleNamespace(sliding_window_overlay=lambda size, more: None),
    )
    with pytest.raises(GoneError, match=r"with the parameters \(size, more\) instead of \(sliding"):
        hf.OVERLAY.get()


def test_a_moved_name_is_tried_under_both(monkeypatch: pytest.MonkeyPatch) -> None:
    item = ReliedItem("torch", ("new:name", "old:inner.name"), "test")
    old = SimpleNamespace(inner=SimpleNamespace(name=3))
    monkeypatch.setattr(relied, "import_module", lambda name: {"old": old}.get(name, torch))
    assert item.get() == 3
    del old.inner.name
    with pytest.raises(GoneError, match=r"`new\.name` or `old\.inner\.name`, which kvparity uses"):
        item.get()


def test_the_command_line_ends_with_the_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(
        "version: 1\nname: gone\n"
        f"subject: {{kind: transformers, attention: sdpa, config: {FAMILIES['llama']}}}\n"
        "numerics: {execution: float32}\n"
        "workloads: [{name: w, prompt_tokens: [3], generate: 2}]\n"
        "checks: [{name: c, relation: invariance, paths: [decode]}]\n"
        "controls: [stale-slot]\n"
    )
    gone = ReliedItem("transformers", ("transformers:Attentions",), "see which attention is called")
    monkeypatch.setattr(hf, "ATTENTIONS", gone)
    command = ["verify", str(tmp_path / "c.yaml"), "--run-dir", str(tmp_path / "run")]
    assert main([*command, "--jobs", "1"]) == ExitCode.ERROR
    said = capsys.readouterr().err
    assert sentence(gone) in said
    assert "internal error" not in said
    assert "the subject raised" not in said


def test_models_are_missing_from_older_transformers_alone() -> None:
    """Tests of models that transformers 4 has not are skipped there; here none is."""
    types = sorted({config["model_type"] for config in FAMILIES.values()} | {"qwen3_next"})
    if tuple(map(int, transformers.__version__.split(".")[:2])) >= (5, 23):
        needs(*types)
    with pytest.raises(pytest.skip.Exception, match="such_a_model"):
        needs(*types, "such_a_model")


# The sources

SOURCES = [p for room in ("harness", "kernels", "contracts") for p in (ROOT / room).rglob("*.py")]
FOREIGN = ("torch", "triton", "transformers", "numpy", "flashinfer")
# Of os, argparse, subprocess and atexit.
STANDARD = {
    "_exit",
    "_actions",
    "_SubParsersAction",
    "_args_from_interpreter_flags",
    "_run_exitfuncs",
}


def private(source: str) -> list[str]:
    """Names of others that are not in their documentation, as a file uses them."""
    nodes = list(ast.walk(ast.parse(source)))
    own = {n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    for n in nodes:
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name):
            own |= {n.attr} if n.value.id in ("self", "cls") else set()
        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name):
            own.add(n.target.id)
    found = []
    for n in nodes:
        if isinstance(n, ast.Attribute) and n.attr.startswith("_") and not n.attr.endswith("__"):
            found += [n.attr] if n.attr not in own | STANDARD else []
        modules = [n.module or ""] if isinstance(n, ast.ImportFrom) else []
        modules += [a.name for a in n.names] if isinstance(n, ast.Import) else []
        for name in modules:
            first, *rest = name.split(".")
            deep = any(part.startswith("_") for part in rest)
            inside = first == "transformers" and bool(rest)
            inside |= first == "triton" and rest[:1] in (["runtime"], ["backends"], ["compiler"])
            found += [name] if first in FOREIGN and (deep or inside) else []
    return found


def test_private_names_are_used_in_their_place_only() -> None:
    found = {str(p.relative_to(ROOT)): private(p.read_text()) for p in SOURCES}
    outside = {path: names for path, names in found.items() if names and "/relied/" not in path}
    assert outside == {}
    inside = {path for path, names in found.items() if names}
    assert {"kernels/kvparity_kernels/relied/torch.py"} <= inside  # the control: they are seen


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("x = model.config._attn_implementation", "_attn_implementation"),
        ("import torch\ntorch._C._get()", "_get"),
        ("from torch.utils._pytree import tree_map", "torch.utils._pytree"),
        ("from triton.runtime import interpreter", "triton.runtime"),
        ("from transformers.cache_utils import DummyLayer", "transformers.cache_utils"),
        ("import transformers.masking_utils", "transformers.masking_utils"),
    ],
)
def test_a_private_name_elsewhere_is_seen(source: str, seen: str) -> None:
    assert seen in private(source)
