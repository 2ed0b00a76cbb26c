"""The frame of every HTML page: one file that works from disk, without a network, in light and in dark."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Final

FOLDER: Final = "hermes_sim.analysis.report"


def whole_page(title: str, body: str, *scripts: str) -> str:
    """The page with its style and its scripts inside. scripts: more of them, behind plotly's and the charts'."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>'
        f"<style>{_file('page.css')}</style>"
    )
    code = "".join(f"<script>{text}</script>" for text in (_plotly(), _file("page.js"), *scripts))
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}{code}</body></html>\n'


def _file(name: str) -> str:
    return (files(FOLDER) / name).read_text(encoding="utf-8")


def _plotly() -> str:
    """The script of the installed plotly; the package itself takes a second to import and is not needed."""
    return (files("plotly.package_data") / "plotly.min.js").read_text(encoding="utf-8")
