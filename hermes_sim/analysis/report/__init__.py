"""One self-contained HTML page per run. One file a part of the page; page.py puts them together."""
