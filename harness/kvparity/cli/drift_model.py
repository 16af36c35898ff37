"""``kvparity drift`` against a model: how it scores, and which of its settings explain the gap."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from kvparity.cli import progress, say
from kvparity.cli.stop import ends
from kvparity.run.device import settle

if TYPE_CHECKING:
    from kvparity.gaps.explain import Explanation, FlipTrial
    from kvparity.gaps.settings import Settings
    from kvparity.gaps.sides import MatchedSides
    from kvparity.rollouts.tokens import Tokens

_DTYPES = ("float32", "bfloat16", "float16")

_OF_EXPLAIN = ("seconds", "trials", "candidate", "try_compile")


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
        "--routes",
        choices=("own", "recorded"),
        default=absent,
        help="experts of a mixture: the model's own choice (default), or the recorded ones",
    )
    group.add_argument(
        "--adapter",
        default=absent,
        metavar="FOLDER",
        help="put this PEFT adapter on the checkpoint; needs kvparity[peft]",
    )
    group.add_argument(
        "--adapter-dtype",
        choices=("float32", "model"),
        default=absent,
        help="of an adapter in 16 bits: float32, as peft trains it (default), or the model's",
    )
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
        ("merged", "merge the adapter into the weights; else it is computed beside them"),
        ("invariant", "torch's reductions in kvparity's fixed order, with --attention eager"),
    ):
        group.add_argument(f"--{name}", action="store_true", default=absent, help=told)

    group = parser.add_argument_group("explaining the gap (with --against MODEL)")
    group.add_argument(
        "--explain",
        action="store_true",
        default=absent,
        help="flip one setting at a time, then those that mattered together, and rank them",
    )
    group.add_argument(
        "--seconds",
        type=float,
        default=absent,
        metavar="S",
        help="begin no trial after that long (default: 3600)",
    )
    group.add_argument(
        "--trials",
        type=Path,
        default=absent,
        metavar="FILE",
        help="keep finished trials in FILE, and begin with those that are in it",
    )
    group.add_argument(
        "--candidate",
        type=Path,
        action="append",
        default=absent,
        metavar="FOLDER",
        help="also try the weights, and the head alone, of this checkpoint; may be repeated",
    )
    group.add_argument(
        "--try-compile",
        action="store_true",
        default=absent,
        help="also try torch.compile, which takes minutes",
    )


def given(args: argparse.Namespace) -> list[str]:
    """Options of a model that are there."""
    from kvparity.gaps.settings import Settings

    more = ("explain", *_OF_EXPLAIN)
    known = (*(each.name for each in fields(Settings)), *more)
    names = (name for name in known if hasattr(args, name))
    return [
        "--no-position-ids" if name == "position_ids" else f"--{name.replace('_', '-')}"
        for name in names
    ]


def compare(args: argparse.Namespace) -> tuple[MatchedSides, Explanation | None]:
    """The recording with the model's logprobs, and what explains the gap if that was asked for.

    Raises:
        StopError: options that do not fit each other.
    """
    with ends(ValueError):
        base = settings(args)
        explain = hasattr(args, "explain")
        alone = [f"--{name.replace('_', '-')}" for name in _OF_EXPLAIN if hasattr(args, name)]
        if alone and not explain:
            raise ValueError(f"{', '.join(alone)}: of --explain; expected --explain, too")
        _check_explain(args)
        device = settle(args.device)
    from kvparity.core.environment import settle as settle_process
    from kvparity.gaps.score import by_model

    settle_process()
    known, keep = _trials(args, device) if explain else _NO_TRIALS
    shown = progress.scored()
    unseen: list[str] = []
    told: set[str] = set()

    def score(settings: Settings) -> MatchedSides:
        found = by_model(
            args.rollouts, args.against, settings, device=device, watch=explain, progress=shown
        )
        unseen[:] = [found.unseen] if found.unseen else []
        for note in set(found.notes) - told:
            say.tell(f"kvparity: {note}", file=sys.stderr)
        told.update(found.notes)
        return found.sides

    both = score(base)
    if not explain:
        return both, None
    if not both.tokens.count:
        say.tell("--explain: no token is compared, so nothing is explained", file=sys.stderr)
        return both, None
    from kvparity.gaps.explain import Explainer
    from kvparity.gaps.factors import MoreFactors
    from kvparity.gaps.flips import RouteFlips, from_base, from_recorded

    def tokens(settings: Settings) -> tuple[Tokens, RouteFlips | None]:
        if settings == base:
            return both.tokens, from_recorded(both.tokens, both.experts)
        other = score(settings)
        return other.tokens, from_base(both.tokens, both.experts, other.experts)

    experts = both.experts
    if experts is not None and experts.why:
        unseen.append(f"routes recorded: {experts.why}")
    more = MoreFactors(
        _candidates(args),
        hasattr(args, "try_compile"),
        routes=experts is not None and experts.recorded is not None,
        untried=tuple(unseen),
    )
    seconds = getattr(args, "seconds", 3600.0)
    return both, Explainer(base, tokens, seconds, known, keep, more).explain()


def _candidates(args: argparse.Namespace) -> tuple[str, ...]:
    return tuple(map(str, getattr(args, "candidate", ())))


def _check_explain(args: argparse.Namespace) -> None:
    if not getattr(args, "seconds", 0.0) >= 0:
        raise ValueError(f"--seconds {args.seconds}: expected a number from 0")
    for folder in getattr(args, "candidate", ()):
        if not (folder / "config.json").is_file():
            raise ValueError(f"--candidate {folder}: expected a checkpoint's folder")
        if folder.samefile(args.against):
            raise ValueError(f"--candidate {folder} is --against itself; expected other weights")


_NO_TRIALS: tuple[list[FlipTrial], Callable[[FlipTrial], None]] = ([], lambda trial: None)


def _trials(
    args: argparse.Namespace, device: str
) -> tuple[list[FlipTrial], Callable[[FlipTrial], None]]:
    """Those that are known, and what keeps a new one: read before anything is computed."""
    path: Path | None = getattr(args, "trials", None)
    if path is None:
        return _NO_TRIALS
    import torch

    from kvparity.core import environment
    from kvparity.gaps import trials

    ran_on = f"{environment.versions()} {environment.device_name(torch.device(device))}"
    adapter = [Path(args.adapter)] if hasattr(args, "adapter") else []
    folders = [args.against, *adapter]
    about = trials.source(args.rollouts, folders, _candidates(args), ran_on)
    return trials.read(path, about), lambda trial: trials.append(path, about, trial)


def settings(args: argparse.Namespace) -> Settings:
    """What the options say.

    Raises:
        ValueError: they do not fit each other.
    """
    from kvparity.gaps.settings import Settings

    known = {each.name for each in fields(Settings)}
    found = {name: value for name, value in vars(args).items() if name in known}
    if "seed" in found and not found.get("train"):
        raise ValueError("--seed: dropout draws in train mode alone; expected --train, too")
    return Settings(**found)
