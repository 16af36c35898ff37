"""Arguments that several verbs take in the same way."""

from __future__ import annotations

import argparse
from typing import TypeAlias

from kvparity.run.device import VARIABLE, default

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What a verb is added to."""


def add_contract(parser: argparse.ArgumentParser) -> None:
    """Add the contract."""
    parser.add_argument("contract", help="a contract file, or the name of a library contract")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        default=default(),
        help="cpu (Triton's interpreter), cuda or cuda:N; default: "
        f"${VARIABLE}, else cuda where there is one, else cpu",
    )
