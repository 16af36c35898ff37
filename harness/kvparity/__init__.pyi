from kvparity.api.assertions import assert_parity as assert_parity
from kvparity.api.drift import RolloutDrift as RolloutDrift
from kvparity.api.drift import drift as drift
from kvparity.api.locate import locate as locate
from kvparity.api.models import check_model as check_model
from kvparity.api.pairs import check_pair as check_pair
from kvparity.api.reports import Report as Report
from kvparity.api.shrink import shrink as shrink
from kvparity.api.verify import verify as verify
from kvparity.gaps.settings import Settings as Settings

__version__: str
__all__ = [
    "Report",
    "RolloutDrift",
    "Settings",
    "__version__",
    "assert_parity",
    "check_model",
    "check_pair",
    "drift",
    "locate",
    "shrink",
    "verify",
]
