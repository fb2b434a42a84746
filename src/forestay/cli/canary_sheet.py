"""The contact sheet of canaries as one HTML page: golden beside new, whole in one file. Pure; it decides nothing."""

import html
from collections.abc import Mapping, Sequence
from typing import cast

_STYLE = """
body{font:15px/1.4 system-ui,sans-serif;margin:2rem;background:#faf8f5;color:#202024}
table{border-collapse:collapse}td,th{padding:.4rem .8rem;text-align:left;vertical-align:top}
tr+tr{border-top:1px solid #ddd}img{max-width:256px;min-width:96px;image-rendering:pixelated;background:#eee}
.differs,.missing{color:#a02020;font-weight:600}
"""


def render_sheet(told: Mapping[str, object]) -> str:
    """Return the page of what `/admin/quality/canaries/sheet` tells."""
    title = html.escape(f"Canaries of {told['revision_id']}, golden of {told['golden_of'] or 'nothing yet'}")
    rows = "".join(_row(row) for row in cast("Sequence[Mapping[str, object]]", told["rows"]))
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    columns = "<tr><th>canary</th><th>golden</th><th>new</th><th>how they compare</th></tr>"
    return f"{head}<h1>{title}</h1><table>{columns}{rows}</table></html>\n"


def _row(row: Mapping[str, object]) -> str:
    standing, words = html.escape(str(row["standing"]), quote=True), html.escape(str(row["words"]))
    numbers = f"{cast('float', row['levels']):.2f} levels apart, band {cast('float', row['band_levels']):.2f}"
    where = html.escape(f"{row['environment']}; replica {row['replica_id']}")
    name = html.escape(str(row["canary"]))
    compared = f'<td><span class="{standing}">{standing}</span><br>{numbers}<br>{words}</td>'
    pictures = _image(row["golden_png"]) + _image(row["new_png"])
    return f"<tr><td>{name}<br><small>{where}</small></td>{pictures}{compared}</tr>"


def _image(data: object) -> str:
    shown = f'<img alt="" src="data:image/png;base64,{html.escape(str(data), quote=True)}">' if data else "no picture"
    return f"<td>{shown}</td>"
