"""The options of ``kvparity drift`` that say how a model scores."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvparity.drift.settings import Settings

_DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options, all absent by default: what is not given is that of ``Settings``."""
    group = parser.add_argument_group("how a model scores (with --against MODEL)")
    absent = argparse.SUPPRESS
    for name, choices, told in (
        ("dtype", _DTYPES, "of weights and computation (default: bfloat16)"),
        ("head-dtype", _DTYPES, "of the head's product (default: as --dtype)"),
        ("autocast", _DTYPES[1:], "run under torch's autocast of this dtype"),
        ("layout", ("alone", "right", "left", "packed"), "rows of sequences (default: alone)"),
        (
            "log-softmax",
            ("float32", "logits", "chunked"),
            "of logits made float32 (default), of logits as they are, or in vocabulary chunks",
        ),
    ):
        group.add_argument(f"--{name}", choices=choices, default=absent, help=told)
    group.add_argument(
        "--attention", default=absent, help="transformers' attention (default: sdpa)"
    )
    group.add_argument(
        "--micro-batch",
        type=int,
        default=absent,
        metavar="N",
        help="sequences in one forward, with --layout right, left or packed (default: 1)",
    )
    group.add_argument(
        "--no-position-ids",
        dest="position_ids",
        action="store_false",
        default=absent,
        help="let the model count positions through padding or a packed row",
    )
    group.add_argument(
        "--seed", type=int, default=absent, metavar="S", help="of dropout, with --train"
    )
    for name, told in (
        ("processed", "logprobs after the recorded temperature and top-p"),
        ("train", "train mode: dropout acts"),
        ("gradient-checkpointing", "recompute as training does, with --train"),
        ("compile", "compile the model by torch.compile"),
        ("invariant", "torch's reductions in kvparity's fixed order, with --attention eager"),
    ):
        group.add_argument(f"--{name}", action="store_true", default=absent, help=told)


def given(args: argparse.Namespace) -> list[str]:
    """Options of a model that are there."""
    from kvparity.drift.settings import Settings

    names = (each.name for each in fields(Settings) if hasattr(args, each.name))
    return [
        "--no-position-ids" if name == "position_ids" else f"--{name.replace('_', '-')}"
        for name in names
    ]


def settings(args: argparse.Namespace) -> Settings:
    """What the options say.

    Raises:
        ValueError: they do not fit each other.
    """
    from kvparity.drift.settings import Settings

    known = {each.name for each in fields(Settings)}
    found = {name: value for name, value in vars(args).items() if name in known}
    if "seed" in found and not found.get("train"):
        raise ValueError("--seed: dropout draws in train mode alone; expected --train, too")
    return Settings(**found)
