"""A check as an assertion: what does not hold fails the test, with the report as its message."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from typing_extensions import ParamSpec

from kvparity.api.pairs import check_pair
from kvparity.api.reports import Report
from kvparity.core.errors import RunFolderError, SubjectError, UnsupportedError
from kvparity_contracts.problems import ContractError

P = ParamSpec("P")
EXPECTED = (ContractError, RunFolderError, SubjectError, UnsupportedError, ValueError)


def asserted(check: Callable[P, Report]) -> Callable[P, Report]:
    """The same, which raises ``AssertionError`` with the report's text unless it holds.

    Other errors are those of ``check``, without the frames of this package.
    """

    @wraps(check)
    def asserting(*args: P.args, **kwargs: P.kwargs) -> Report:
        __tracebackhide__ = True  # pytest shows the caller's line
        try:
            found = check(*args, **kwargs)
        except EXPECTED as error:
            raise error.with_traceback(None) from None
        if not found.holds:
            raise AssertionError(str(found))
        return found

    return asserting


assert_parity = asserted(check_pair)
"""As :func:`kvparity.check_pair`; raises ``AssertionError`` unless the report holds."""
