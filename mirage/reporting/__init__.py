"""One page for a finished run or sweep."""

from mirage.reporting.collect import Report, collect
from mirage.reporting.page import render

__all__ = ["Report", "collect", "render"]
