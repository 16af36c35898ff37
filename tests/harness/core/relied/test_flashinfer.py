"""What is relied on in FlashInfer is seen to be gone, in words; calls outside of it are refused."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from kvparity.core.relied import flashinfer as relied
from kvparity.pairs import flashinfer as pairs


def library(prefill=None, decode=None):
    """FlashInfer as 0.7 has it, with these methods in place of its own."""

    class Prefill:
        def __init__(self, float_workspace_buffer, kv_layout="NHD", use_graph=False, backend="a"):
            self._backend = backend

        def plan(
            self, qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len,
            num_qo_heads, num_kv_heads, head_dim_qk, page_size, head_dim_vo=None, causal=False,
            sm_scale=None, window_left=-1, logits_soft_cap=None, q_data_type="float16",
            kv_data_type=None, fixed_split_size=None, disable_split_kv=False,
        ):  # fmt: skip
            pass

        def run(
            self, q, paged_kv_cache, *args, return_lse=False, lse_base="log2", lse_layout="NH",
            sinks=None,
        ):  # fmt: skip
            pass

    class Decode:
        def __init__(
            self, float_workspace_buffer, kv_layout="NHD", use_tensor_cores=False, backend="auto"
        ):
            self._backend = backend

        def plan(
            self, indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size,
            *args, **kwargs,
        ):  # fmt: skip
            self._plan_impl(indptr, *args, **kwargs)

        def _plan_impl(
            self, indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size,
            *, window_left=-1, logits_soft_cap=None, q_data_type="float16", kv_data_type=None,
            sm_scale=None, fixed_split_size=None, disable_split_kv=False,
        ):  # fmt: skip
            pass

        def run(self, q, paged_kv_cache, *args, return_lse=False, sinks=None):
            pass

    for wrapper, methods in ((Prefill, prefill), (Decode, decode)):
        for name, method in (methods or {}).items():
            setattr(wrapper, name, method) if method else delattr(wrapper, name)
    module = ModuleType("flashinfer")
    vars(module).update({relied.PREFILL: Prefill, relied.DECODE: Decode, "__version__": "9"})
    return module


def other_run(self, q, paged_kv_cache, *, lse_base="e", lse_layout="HN", sinks=None):
    pass


def renamed(self, q, kv, *, return_lse=False):
    pass


def no_split(
    self, indptr, indices, last_page_len, num_qo_heads, num_kv_heads, head_dim, page_size,
    *, window_left=0, logits_soft_cap=None, q_data_type="float16", kv_data_type=None,
    sm_scale=None, disable_split_kv=False, more,
):  # fmt: skip
    pass


def test_nothing_is_gone_from_what_is_as_expected():
    assert relied.gone(library()) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"prefill": {"run": None}}, ["Prefill has no run()"]),
        (
            {"prefill": {"run": other_run}},
            ["Prefill.run takes no return_lse", "Prefill.run: lse_base defaults to 'e', was "
             "'log2'", "Prefill.run: lse_layout defaults to 'HN', was 'NH'"],
        ),
        ({"decode": {"run": renamed}}, ["Decode.run: argument 1 is kv, was paged_kv_cache"]),
        (
            {"decode": {"_plan_impl": no_split}},
            ["Decode.plan takes no fixed_split_size", "Decode.plan needs more, which it is not "
             "given", "Decode.plan: window_left defaults to 0, was -1"],
        ),
        (
            {"decode": {"__init__": lambda self, float_workspace_buffer, kv_layout: None}},
            ["Decode.__init__ takes no use_tensor_cores", "Decode.__init__ takes no backend"],
        ),
    ],
)  # fmt: skip
def test_what_is_gone_is_named(changed, words):
    said = " ".join(relied.gone(library(**changed)))
    for kind in ("Prefill", "Decode"):
        said = said.replace(f"flashinfer.Batch{kind}WithPagedKVCacheWrapper", kind)
    assert [w for w in words if w not in said] == []


def test_a_wrapper_that_is_not_there_or_hides_its_backend_is_named():
    found = library()
    delattr(found, relied.DECODE)

    class Quiet(getattr(found, relied.PREFILL)):
        pass

    setattr(found, relied.PREFILL, Quiet)
    assert relied.gone(found) == [
        f"flashinfer.{relied.PREFILL} does not keep its backend in _backend, so that a replaced "
        "one would go unseen",
        f"flashinfer has no {relied.DECODE}",
    ]


def test_the_pairs_refuse_a_library_that_changed(monkeypatch):
    monkeypatch.setitem(sys.modules, "flashinfer", library(decode={"run": renamed}))
    q = SimpleNamespace(device=torch.device("cuda"))
    with pytest.raises(RuntimeError, match=r"FlashInfer 9 is not as expected: .*argument 1 is kv"):
        pairs.library(q)
    whole = library()
    monkeypatch.setitem(sys.modules, "flashinfer", whole)
    assert pairs.library(q) is whole


@pytest.mark.parametrize("call", relied.CALLS, ids=lambda c: f"{c.wrapper}.{c.method}")
def test_the_declared_signature_binds_what_is_listed_and_nothing_else(call):
    bind = inspect.Signature.bind
    own = relied.declared(call.wrapper, call.method)
    places = range(len(call.positional))
    bind(own, *places, **dict.fromkeys(call.named))
    for more in ((*places, 0), places[:-1]):
        with pytest.raises(TypeError):
            bind(own, *more)
    with pytest.raises(TypeError, match="unexpected keyword"):
        bind(own, *places, lse_base="e")
