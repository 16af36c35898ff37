"""One writer in a folder at a time, and who it is: ``lock.json`` in it, for as long as it works.

The kernel's lock on that file ends with its process, so on one machine it tells who lives. Between
machines a network file system may have no such locks, or each machine its own: there the file's
time tells, which its holder renews every few seconds.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import pwd
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kvparity.core.errors import RunFolderError

FILE = "lock.json"
RENEWED_S = 5.0
"""How often a holder renews the file's time."""
STALE_S = 60.0
"""A file whose time is older has no holder any more."""
_KEYS = ("work", "pid", "user", "host", "since")
_TAKEN = (errno.EAGAIN, errno.EACCES)
_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
"""What a link points to is somebody's file, and is not written over."""
_log = logging.getLogger("kvparity")


@contextmanager
def held(folder: Path, work: str) -> Iterator[None]:
    """Keep every other ``held`` of ``folder`` out meanwhile. ``work``: the verb, for those.

    What a dead process left is taken over, and a warning says so.

    Raises:
        RunFolderError: another holds it, or it cannot be written.
    """
    path = folder / FILE
    handle = _taken(path)
    done = threading.Event()
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, _own(work), 0)
        thread = threading.Thread(target=_renew, args=(handle, done), daemon=True, name=FILE)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            with suppress(OSError):  # a subject may have taken the folder away
                path.unlink()
    finally:
        os.close(handle)


def _taken(path: Path) -> int:
    """The open file, locked, once nobody else has it."""
    while True:
        try:
            handle = os.open(path, _OPEN, 0o644)
        except OSError as error:
            raise RunFolderError(_unwritable(path, error)) from error
        try:
            if _ours(path, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _ours(path: Path, handle: int) -> bool:
    """Whether the open file is ours; False where it was removed before it was locked.

    Raises:
        RunFolderError: it is another's.
    """
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise RunFolderError(f"cannot write to {path.parent}: {FILE} there is no file")
    works = True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            raise RunFolderError(_in_use(path, _said(handle))) from None
        works = False
        _log.warning(
            "locks do not work in %s (%s): that nobody else writes there is known by the time of "
            "%s alone", path.parent, error.strerror, FILE,
        )  # fmt: skip
    try:
        if os.fstat(handle).st_ino != path.stat().st_ino:
            return False
    except FileNotFoundError:
        return False
    before = _said(handle)
    if before is None:
        return True
    here = works and before.get("host") == socket.gethostname()
    if not here and _age_s(handle) < STALE_S:
        raise RunFolderError(_in_use(path, before, seen=False))
    _log.warning("%s was left in use by %s, which has ended: taken over", path.parent, _who(before))
    return True


def _own(work: str) -> bytes:
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    about = {
        "work": work, "pid": os.getpid(), "user": _user(os.getuid()),
        "host": socket.gethostname(), "since": since,
    }  # fmt: skip
    return json.dumps(about).encode() + b"\n"


def _said(handle: int) -> dict[str, object] | None:
    """What a holder wrote; None where nobody did, or not all of it yet."""
    try:
        found = json.loads(os.pread(handle, 1 << 16, 0))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _who(said: dict[str, object]) -> str:
    work, pid, user, host, since = (said.get(key, "?") for key in _KEYS)
    return f"{work}, pid {pid} of {user} on {host}, since {since}"


def _in_use(path: Path, said: dict[str, object] | None, *, seen: bool = True) -> str:
    who = f": {_who(said)}" if said else ""
    if seen:
        return f"another kvparity runs in {path.parent}{who}; wait for it, or stop it"
    return (
        f"another kvparity runs in {path.parent}{who}; wait for it, or where it has ended for "
        f"{STALE_S:g} s"
    )


def _age_s(handle: int) -> float:
    """How long ago the file's time was renewed, by the clock of the file system."""
    before = os.fstat(handle)
    os.utime(handle)
    now = os.fstat(handle).st_mtime_ns
    os.utime(handle, ns=(before.st_atime_ns, before.st_mtime_ns))
    return (now - before.st_mtime_ns) / 1e9


def _renew(handle: int, done: threading.Event) -> None:
    while not done.wait(RENEWED_S):
        with suppress(OSError):
            os.utime(handle)


def _unwritable(path: Path, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return f"cannot write to {path.parent}: {FILE} there is a link; remove it"
    owner = ""
    with suppress(OSError):
        uid = path.parent.stat().st_uid
        owner = "" if uid == os.getuid() else f"; it belongs to {_user(uid)}"
    return f"cannot write to {path.parent}: {error.strerror}{owner}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
