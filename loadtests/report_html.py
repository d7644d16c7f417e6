"""A judged load run as one HTML page that needs nothing else, light or dark. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from loadtests import pictures
from loadtests.report_text import amount, milliseconds, times, where, word

JSON = Mapping[str, Any]


def page(run: JSON) -> str:
    """The whole page; below 300 KB, however long the run was."""
    # What is drawn has escaped everything itself.
    drawn = {"timeline": pictures.timeline(run), "curves": pictures.curves(run)}
    safe = {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704  # nosec B704
    return _template().render(run={"slo": "", "drill": None, **run}, **safe)


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(amount=amount, ms=milliseconds, times=times, where=where, word=word)
    return environment.get_template("report.html.j2")
