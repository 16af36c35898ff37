"""``--ray`` and what belongs to it: the tasks of a run on the nodes of a Ray cluster."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from kvparity.cli.stop import StopError
from kvparity.run.options import seconds

if TYPE_CHECKING:
    from kvparity.run.on_ray.request import RayRequest
    from kvparity.run.pools import Pools
    from kvparity.sweeps.carry_out import Carried
    from kvparity_contracts.loader import LoadedContract

_HERE = "auto"
_WAIT_S = 60.0


def add_arguments(parser: argparse.ArgumentParser, more: str) -> None:
    """Add them to a verb; ``more``: what its help says of ``--ray``."""
    parser.add_argument(
        "--ray",
        nargs="?",
        const=_HERE,
        metavar="ADDRESS",
        help="compute on the nodes of a Ray cluster: that of ADDRESS, else the one that "
        f"RAY_ADDRESS names or this machine is a node of; {more}",
    )
    parser.add_argument(
        "--ray-accelerator",
        metavar="TYPE",
        help="with --ray and a CUDA device: only on this kind of GPU, as Ray names it (H100)",
    )
    parser.add_argument(
        "--ray-wait",
        type=float,
        metavar="SECONDS",
        help="with --ray: how long to wait for a node that could take a task at all (default: "
        f"{_WAIT_S:g})",
    )


def sound(args: argparse.Namespace) -> None:
    """Refuse what means nothing.

    Raises:
        StopError, ValueError: why, and what was expected.
    """
    sound_of_sweep(args)
    if args.ray is None:
        return
    if args.device not in ("cpu", "cuda"):
        raise StopError(
            f"--ray: device {args.device!r}; add --device cpu or --device cuda: which GPU of which "
            "node a task gets is for Ray to choose, and whether it gets one is not"
        )
    if args.device == "cuda" and not args.no_locate:
        raise StopError(
            "--ray with --device cuda: add --no-locate, for where cases part is looked for on this "
            "machine; kvparity locate does it later, on one that has the device"
        )
    if args.ray_accelerator is not None and args.device != "cuda":
        raise StopError("--ray-accelerator means nothing with --device cpu")


def sound_of_sweep(args: argparse.Namespace) -> None:
    """Refuse what means nothing for any verb.

    Raises:
        StopError, ValueError: why, and what was expected.
    """
    if args.ray is None:
        for name in ("accelerator", "wait"):
            if getattr(args, f"ray_{name}") is not None:
                raise StopError(f"--ray-{name} means nothing without --ray")
    elif args.ray_wait is not None:
        seconds("ray-wait", args.ray_wait)


def device(args: argparse.Namespace) -> str | None:
    """The device of the nodes, which this machine need not have; None: the nodes have no say."""
    return "cuda" if args.ray is not None and args.device == "cuda" else None


@contextmanager
def pools(args: argparse.Namespace, loaded: LoadedContract) -> Iterator[Pools | None]:
    """Where the tasks are computed, as long as this lasts; None: here."""
    if args.ray is None:
        yield None
        return
    from kvparity.run.on_ray.cluster import Cluster
    from kvparity.run.on_ray.machines import OnRay

    request = _request(args)
    with Cluster(request.address) as cluster, OnRay(cluster, request, loaded) as nodes:
        yield nodes


@contextmanager
def sweeping(args: argparse.Namespace) -> Iterator[Carried]:
    """What carries out a sweep, as long as this lasts."""
    from kvparity.sweeps import carry_out

    if args.ray is None:
        yield carry_out.carry_out
        return
    from kvparity.run.on_ray.cluster import Cluster
    from kvparity.sweeps import nodes, on_node

    request = _request(args)
    with Cluster(request.address, on_node.serve) as cluster:
        yield partial(nodes.carry_out_on, cluster, request)


def _request(args: argparse.Namespace) -> RayRequest:
    from kvparity.run.on_ray.request import RayRequest

    wait_s = _WAIT_S if args.ray_wait is None else args.ray_wait
    return RayRequest(args.ray, args.ray_accelerator, wait_s, args.jobs)


def again(args: argparse.Namespace) -> str:
    """What the command that resumes has to say of it."""
    if args.ray is None:
        return ""
    words = ["--no-locate"] if args.device == "cuda" else []
    words += ["--device", args.device, "--ray", *([] if args.ray == _HERE else [args.ray])]
    if args.ray_accelerator is not None:
        words += ["--ray-accelerator", args.ray_accelerator]
    return shlex.join(words) + " "
