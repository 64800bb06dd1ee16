"""The page: HTML with everything inside, that works without a network."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from mirage.reporting.collect import Report


def render(report: Report) -> str:
    """A page of HTML5: figures as SVG, style and script inline."""
    environment = Environment(
        loader=PackageLoader("mirage.reporting", "templates"),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    here = Path(__file__).parent / "templates"
    return environment.get_template("page.html").render(
        report=report,
        style=Markup((here / "page.css").read_text()),
        script=Markup((here / "page.js").read_text()),
        figures=[(one.name, Markup(one.svg), one.caption) for one in report.drawings],
    )


def number(value: object) -> str:
    """A value of a cell as one reads it; a dash for none."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
