"""The limited child in which the C2PA library meets a file: signs one, or reads what one says, and ends.

The library is native code that parses strangers' bytes. So it runs in a process of its own, without network, files,
further processes or much memory and time (`media/opening/sandbox`), and without the signing key: what is to be signed
goes to the parent, and the signature comes back. Speaks JSON lines on standard input and output:

    in    {"do": "sign" | "read", "content_type": ..., "manifest": ..., "chain": ..., "authority": ..., "source": 3,
           "out": 4, "limits": {...}}
    out   {"sign": "<base64>"}    in   {"signature": "<base64>"}
    out   {"done": "<JSON of the manifest store, or empty>"} or {"refused": "..."}

Started by `c2pa` alone. This is the only module that imports the library.
"""

import base64
import json
import os
import sys
from typing import BinaryIO, cast

import c2pa

from forestay.media.limits import DecodeLimits
from forestay.media.opening import sandbox

_MAX_LINE = 1024 * 1024
_NO_THUMBNAIL = {"builder": {"thumbnail": {"enabled": False}}}


def main() -> int:
    """Do one thing."""
    asked = cast("dict[str, object]", json.loads(sys.stdin.buffer.readline(_MAX_LINE)))
    source = os.fdopen(cast("int", asked["source"]), "rb")
    source.seek(0)  # the place in a file is shared with the parent
    settings = _settings(asked)
    context = c2pa.Context(settings)
    limits = DecodeLimits(**cast("dict[str, int]", asked["limits"]))
    isolation = sandbox.prepare()
    sandbox.enter(os.getpid(), os.fstat(source.fileno()).st_size, limits, isolation)
    try:
        done = _sign(asked, source, context) if asked["do"] == "sign" else _read(asked, source, context)
    except Exception as error:  # noqa: BLE001 - whatever a file provokes in the library is told, not shown
        _say({"refused": f"{type(error).__name__}: {error}"[:500]})
        return 0
    _say({"done": done})
    return 0


def _settings(asked: dict[str, object]) -> "c2pa.Settings":
    wanted: dict[str, object] = dict(_NO_THUMBNAIL)
    if asked["do"] == "read":
        wanted |= {
            "trust": {"trust_anchors": asked["authority"]},
            "verify": {"verify_trust": True, "remote_manifest_fetch": False, "ocsp_fetch": False},
        }
    return c2pa.Settings.from_json(json.dumps(wanted))


def _sign(asked: dict[str, object], source: BinaryIO, context: "c2pa.Context") -> str:
    with (
        os.fdopen(cast("int", asked["out"]), "w+b") as out,
        c2pa.Signer.from_callback(_ask_parent, c2pa.C2paSigningAlg.ES256, str(asked["chain"])) as signer,
        c2pa.Builder(str(asked["manifest"]), context) as builder,
    ):
        builder.sign(signer, str(asked["content_type"]), source, out)
    return ""


def _read(asked: dict[str, object], source: BinaryIO, context: "c2pa.Context") -> str:
    reader = c2pa.Reader.try_create(str(asked["content_type"]), source, context=context)
    if reader is None:
        return ""
    with reader:
        return reader.json()


def _ask_parent(message: bytes) -> bytes:
    _say({"sign": base64.b64encode(message).decode()})
    answer = cast("dict[str, str]", json.loads(sys.stdin.buffer.readline(_MAX_LINE)))
    return base64.b64decode(answer["signature"])


def _say(message: dict[str, object]) -> None:
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
