"""Admin route that answers whether a file was made here. Nothing of the file is kept.

It decides nothing: `safety/provenance/made` asks the layers. The file is opened in limited children alone. Mounted
below `/admin/safety`.
"""

import tempfile
from typing import IO, cast

from forestay.gateway.admin_reading import Act, Problem
from forestay.gateway.incoming import pieces
from forestay.gateway.responses import Reply, json_reply

MAX_FILE_BYTES = 256 * 1024 * 1024


async def post_file(act: Act) -> Reply:
    """Tell what manifest, watermark and fingerprint say of the file that is the body."""
    most = min(MAX_FILE_BYTES, act.ports.settings.gateway.max_upload_bytes)
    with tempfile.TemporaryFile() as kept:
        size = 0
        async for piece in pieces(act.request, act.ports.settings.gateway.body_timeout_seconds):
            size += len(piece)
            if size > most:
                raise Problem(413, f"the file is larger than {most} bytes", "too_large")
            kept.write(piece)
        kept.flush()
        origin = await act.ports.origins.of(cast("IO[bytes]", kept))
    return json_reply(200, {"made_by_us": origin.ours, "evidence": origin.evidence, "notes": origin.notes})
