"""What fields mean is read from docstrings where somebody asks, and by no import."""

from __future__ import annotations

import subprocess
import sys

from kvparity_contracts.base import Model
from kvparity_contracts.described import DescribedSchema, meanings


class Whole(Model):
    """Two fields that somebody may want to know of."""

    first: int
    """What comes
    first."""
    second: int
    third: int = 0
    """of three"""


class Narrowed(Whole):
    third: int = 1
    fourth: int = 2
    """added"""


def test_a_meaning_is_the_docstring_under_a_field_also_an_inherited_one() -> None:
    assert meanings(Whole) == {"first": "What comes\nfirst.", "third": "of three"}
    assert meanings(Narrowed) == {"first": "What comes\nfirst.", "fourth": "added"}


def test_a_class_without_source_has_no_meanings() -> None:
    made = type("Made", (Model,), {"__annotations__": {"first": int}, "__module__": "nowhere"})
    assert not meanings(made)


def test_a_schema_has_them_as_descriptions() -> None:
    found = Narrowed.model_json_schema(schema_generator=DescribedSchema)["properties"]
    told = {name: field.get("description") for name, field in found.items()}
    assert told == {
        "first": "What comes\nfirst.",
        "second": None,
        "third": None,
        "fourth": "added",
    }


def test_a_process_that_reads_no_contract_builds_no_model() -> None:
    code = "import sys, kvparity.core.isolation.child; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
