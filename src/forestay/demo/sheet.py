"""The contact sheet: one HTML page beside the saved files, readable without a network or a server."""

import html
from collections.abc import Sequence
from pathlib import Path

from forestay.demo.promises import Kept, Mark, SavedFile

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.5rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-size: .85rem; opacity: .75; }
img, video { width: 100%; border-radius: 6px; display: block; image-rendering: auto; }
audio { width: 100%; } figure:has(audio) { grid-column: span 2; }
.strip { grid-template-columns: repeat(auto-fill, minmax(4.5rem, 1fr)); gap: .4rem; }
.wide { grid-template-columns: 1fr; } .wide img { width: auto; max-width: 100%; }
pre { overflow-x: auto; font-size: .8rem; }
table { border-collapse: collapse; width: 100%; margin-top: 1rem; }
td, th { text-align: left; padding: .35rem .6rem .35rem 0; vertical-align: top; }
tr { border-bottom: 1px solid color-mix(in srgb, currentColor 15%, transparent); }
figure.plot svg { width: 100%; height: auto; } .plot text { fill: currentColor; font-size: 11px; }
.kept { color: #1a7f37; } .broken { color: #cf222e; font-weight: 600; }
"""


def render_sheet(promises: Sequence[Kept], files: Sequence[SavedFile], measured: str = "") -> str:
    """Return the page: pictures, the steps of the stream, film and sound, what was `measured`, the promises."""
    return "".join(
        (
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Forestay demo</title>\n',
            f"<style>{_STYLE}</style>\n",
            "<h1>Forestay: what the demonstration made</h1>\n",
            render_files(files),
            measured,
            f"<h2>Promises</h2>\n{render_promises(promises)}" if promises else "",
            "</html>\n",
        )
    )


def render_files(files: Sequence[SavedFile]) -> str:
    """Return files as sections of HTML: pictures, the steps of a stream, film and sound."""
    steps = [file for file in files if file.name.startswith("step-")]
    sides = [file for file in files if file.name.startswith("sheet-")]
    pictures = [file for file in files if file.name.endswith(".png") and file not in (*steps, *sides)]
    moving = [file for file in files if file.name.endswith((".mp4", ".wav"))]
    return "".join(
        (
            _section("Pictures", "grid", pictures),
            _section("A stream, step by step", "grid strip", steps),
            _section("Film and sound", "grid", moving),
            _section("Side by side: the control, the control again, the candidate", "grid wide", sides),
        )
    )


def render_promises(promises: Sequence[Kept]) -> str:
    """Return a table of promises with what became of each."""
    rows = "".join(_row(promise) for promise in promises)
    return f"<table>\n<tr><th>promise<th>kept?<th>evidence</tr>\n{rows}</table>\n"


def write_sheet(folder: Path, promises: Sequence[Kept], files: Sequence[SavedFile], measured: str = "") -> Path:
    """Write `index.html` into `folder` and return its path; `measured` is HTML that may tell the promises itself."""
    page = folder / "index.html"
    page.write_text(render_sheet(promises, files, measured), encoding="utf-8")
    return page


def _section(title: str, kind: str, files: Sequence[SavedFile]) -> str:
    if not files:
        return ""
    figures = "".join(_figure(file) for file in files)
    return f'<h2>{title}</h2>\n<div class="{kind}">\n{figures}</div>\n'


def _figure(file: SavedFile) -> str:
    source, caption = html.escape(file.name, quote=True), html.escape(file.caption)
    if file.name.endswith(".mp4"):
        shown = f'<video src="{source}" controls loop muted playsinline></video>'
    elif file.name.endswith(".wav"):
        shown = f'<audio src="{source}" controls></audio>'
    else:
        shown = f'<img src="{source}" alt="{html.escape(file.caption, quote=True)}" loading="lazy">'
    return f"<figure>{shown}<figcaption>{caption}</figcaption></figure>\n"


def _row(promise: Kept) -> str:
    kept = promise.mark is Mark.KEPT
    word = '<td class="kept">yes' if kept else '<td class="broken">no'
    return f"<tr><td>{html.escape(promise.text)}{word}<td>{html.escape(promise.evidence)}</tr>\n"
