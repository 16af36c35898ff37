"""The page's markup. jinja2 puts the values in, and escapes every one of them."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from kvparity import __version__
from kvparity.core.words import digits
from kvparity.report.compare.changes import RunsCompared
from kvparity.report.compare.text import SECTIONS
from kvparity.report.document import RunReport
from kvparity.report.page.view import Picture, page_view

_HERE = Path(__file__).parent


def page(folder: Path, report: RunReport) -> str:
    """The file's text: it needs nothing beside it, and no network.

    Raises:
        RunFolderError: a file of the run folder is missing or not as it was written.
    """
    return scripted("page.html", page_view(folder, report))


def scripted(template: str, view: object) -> str:
    """A page with the script that opens what a link leads to; ``view``: what it shows."""
    script = _HERE.joinpath("page.js").read_text(encoding="utf-8")
    return (
        _markup()
        .get_template(template)
        .render(
            view=view,
            style=_HERE.joinpath("page.css").read_text(encoding="utf-8"),
            script=script,
            # The browser runs this script and no other, whatever a name in the report says.
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            version=__version__,
        )
    )


def brief(report: RunReport, text: str) -> str:
    """The verdict and the tables of checks and cases for a notebook, with ``text`` to unfold."""
    return _markup().get_template("brief.html").render(report=report, text=text)


def compared(found: RunsCompared) -> str:
    """What changed between two runs, as a page like the others."""
    style = _HERE.joinpath("page.css").read_text(encoding="utf-8")
    return (
        _markup()
        .get_template("compare.html")
        .render(found=found, sections=SECTIONS, style=style, version=__version__)
    )


def _markup() -> Environment:
    found = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["digits"] = digits
    found.filters["short"] = _short
    found.filters["image"] = _image
    return found


def _short(value: float | str | None) -> str:
    """A measure of a case; nothing was measured: a dash."""
    return "–" if value is None else value if isinstance(value, str) else f"{value:.3g}"


def _image(picture: Picture) -> str:
    """An SVG as an image of its own, in which no script runs."""
    return "data:image/svg+xml;base64," + base64.b64encode(picture.svg.encode()).decode()
