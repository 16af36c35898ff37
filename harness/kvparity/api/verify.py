"""A contract, verified from Python; the verb ``verify`` calls it, too."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from kvparity.api.borrowed import borrowed
from kvparity.api.reports import Report
from kvparity.run.device import default, settle
from kvparity.run.device_switch import with_device
from kvparity.run.options import new_folder, sound
from kvparity.run.verify import TIMEOUT_S, Progress
from kvparity.run.verify import verify as run
from kvparity_contracts.files import load_whole
from kvparity_contracts.library import find
from kvparity_contracts.loader import LoadedContract


def verify(
    contract: str | Path | LoadedContract,
    *,
    device: str | None = None,
    jobs: int | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    timeout: float = TIMEOUT_S,
    modelled: str | None = None,
    command: str = "kvparity.verify",
    progress: Progress | None = None,
) -> Report:
    """Verify a contract: roll out, rescore, compare, plant controls, judge.

    Args:
        contract: the path of a file, the name of one of the library's, or one that is loaded.
        device: ``cpu`` or ``cuda``; left out, what ``KVPARITY_DEVICE`` says, else CUDA where there
            is one.
        jobs: processes to use; left out, as many as cores and memory allow on a CPU, with the
            limits of cgroups, and one on CUDA.
        run_dir: where evidence is written; left out, ``.kvparity/runs/<time>-<name>``.
        resume: finish the interrupted run in ``run_dir``.
        timeout: seconds that one case, rollout, control or loading may take at most.
        modelled: an architecture such as ``sm_90``, whose products are computed on a CPU, as
            ``numerics.device`` in the contract asks for it.
        command: what the evidence says of how the run began.
        progress: called with (cases finished, cases in all, what runs).

    Raises:
        ContractError: the contract is wrong; every problem with file, line and column.
        ValueError: an argument is, or the device is not there.
        UnsupportedError, RunFolderError, SubjectError: see there; what is finished is on disk.
    """
    sound(jobs, timeout)
    if resume and run_dir is None:
        raise ValueError("resume needs run_dir, the folder of the interrupted run")
    loaded = contract if isinstance(contract, LoadedContract) else load_whole(find(str(contract)))
    loaded = with_device(loaded, modelled)
    asked = settle(str(device) if device is not None else default())
    folder = Path(run_dir) if run_dir is not None else new_folder(loaded.contract.name)
    try:
        with borrowed():
            return Report(
                run(
                    loaded,
                    device=asked,
                    folder=folder,
                    jobs=jobs,
                    resume=resume,
                    command=command,
                    progress=progress or _silent,
                    timeout=timeout,
                )
            )
    finally:
        if run_dir is None:
            with suppress(OSError):
                folder.rmdir()  # where nothing is in it: a run that was refused


def _silent(done: int, total: int, what: str) -> None:
    """Nothing is shown: a notebook and a test have their own ways."""
