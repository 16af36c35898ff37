"""Recorded rollouts: one model of them, one file format of ours, and other people's layouts.

Everything here is numpy: reading, checking and comparing recordings imports no torch, except for
files that torch wrote.
"""

from kvparity.rollouts.native import RolloutWriter
from kvparity.rollouts.open import read_rollouts
from kvparity.rollouts.record import Rollout, RolloutError

__all__ = ["Rollout", "RolloutError", "RolloutWriter", "read_rollouts"]
