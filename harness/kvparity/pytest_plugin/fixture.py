"""What the fixture ``kvparity`` gives a test."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from kvparity.api.assertions import asserted
from kvparity.api.pairs import check_pair
from kvparity.api.reports import Report
from kvparity.api.verify import verify
from kvparity.pytest_plugin.session import RunSession


@dataclass(frozen=True)
class Parity:
    """Functions of the package with ``--kvparity-device``, and a run folder for each call.

    ``test``: the test's id, after whose name its run folders are called.
    """

    session: RunSession
    test: str

    @property
    def verify(self) -> partial[Report]:
        """:func:`kvparity.verify`."""
        return partial(verify, device=self.session.device, run_dir=self._folder())

    @property
    def check_pair(self) -> partial[Report]:
        """:func:`kvparity.check_pair`."""
        return partial(check_pair, device=self.session.device, run_dir=self._folder())

    @property
    def assert_parity(self) -> partial[Report]:
        """:func:`kvparity.assert_parity`."""
        return partial(asserted(check_pair), device=self.session.device, run_dir=self._folder())

    def _folder(self) -> Path:
        """One that is not there yet. Tests of one name in two files have folders of their own."""
        words = re.sub(r"[^a-z0-9]+", "-", self.test.rpartition("::")[2].lower()).strip("-")
        mark = hashlib.sha256(self.test.encode()).hexdigest()[:4]
        folders = (self.session.folder(f"{words[:60]}-{mark}-{n}") for n in count(1))
        return next(each for each in folders if not each.exists())
