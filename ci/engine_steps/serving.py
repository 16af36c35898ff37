"""One server, from its start to its end: whatever happens in between, nothing of it stays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from engine_steps.environments import python

START_S = 300.0
"""How long a server may take until it answers; on a busy machine a minute is usual."""


class ServeError(Exception):
    """A server did not start; the message has the last line that it wrote."""


@dataclass(frozen=True)
class Command:
    """What starts a server, and what is set in its environment."""

    words: Sequence[str]
    settings: Mapping[str, str]


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def vllm(root: Path, model: Path, dtype: str, port: int, *flags: str) -> Command:
    """vLLM: its cache can be emptied, and it tells how many tokens came from it."""
    words = [
        str(root / "vllm/bin/vllm"), "serve", str(model), "--served-model-name", "m",
        "--host", "127.0.0.1", "--port", str(port), "--dtype", dtype, "--max-model-len", "512",
        "--max-num-seqs", "16", "--enforce-eager", "--enable-prompt-tokens-details", *flags,
    ]  # fmt: skip
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return Command(words, settings)


def sglang(root: Path, model: Path, dtype: str, port: int, *flags: str) -> Command:
    """SGLang: it shows how many requests run."""
    words = [
        str(python(root / "sglang")), "-m", "sglang.launch_server", "--model-path", str(model),
        "--dtype", dtype, "--device", "cpu", "--attention-backend", "torch_native",
        "--sampling-backend", "pytorch", "--disable-overlap-schedule",
        "--mem-fraction-static", "0.3", "--max-total-tokens", "4096", "--context-length", "512",
        "--skip-server-warmup", "--enable-metrics", "--decode-log-interval", "1",
        "--host", "127.0.0.1", "--port", str(port), *flags,
    ]  # fmt: skip
    return Command(words, {"HF_HUB_OFFLINE": "1"})


@contextmanager
def served(command: Command, port: int, log: Path, start_s: float = START_S) -> Iterator[str]:
    """The address of the server, which is stopped at the end with all that it started.

    Raises:
        ServeError: it ended, or does not answer in ``start_s`` seconds.
    """
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command.words, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=os.environ | command.settings, start_new_session=True,
        )  # fmt: skip
    try:
        _wait(process, url, log, start_s)
        yield url
    finally:
        stop(process)


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does: its server is stopped first."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


def stop(process: subprocess.Popen[bytes], grace_s: float = 20.0) -> None:
    """End a process with all that it started: asked first, killed then."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path, start_s: float) -> None:
    until = time.monotonic() + start_s
    while time.monotonic() < until:
        if process.poll() is not None:
            raise ServeError(f"the server ended with code {process.returncode}: {_last(log)}")
        with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise ServeError(f"the server did not answer in {start_s:.0f} s: {_last(log)}")


def _last(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][-300:] if lines else "it wrote nothing"
