"""What the attacks are made of: inner addresses, a picture that lies, a bundle that is changed after it was stored.

Pure, but for the one file that `flip_last_weight` changes. Called by `attacks`.
"""

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

WEIGHTS = "weights.safetensors"
PICKLE = "weights.pkl"


def inner_urls(port: int) -> list[str]:
    """Return addresses of this machine's loopback and of a cloud's metadata, written in different ways."""
    local = ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::ffff:127.0.0.1]", "[::1]")
    far = ("169.254.169.254", "[::ffff:169.254.169.254]", "metadata.google.internal")
    return [f"http://{host}:{port}/" for host in local] + [f"http://{host}/latest/meta-data/" for host in far]


def png(width: int, height: int, rows: bytes) -> bytes:
    """Return a PNG (RGB, 8 bits) whose header claims a size, whatever its rows hold."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def bundle_of(files: Mapping[str, bytes]) -> bytes:
    """Return a tar of the files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def safetensors(count: int) -> bytes:
    """Return `count` zeros as one tensor (F32), in the format of Hugging Face's safetensors."""
    size = 4 * count
    header = json.dumps({"w": {"dtype": "F32", "shape": [count], "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + bytes(size)


def flip_last_weight(stored: Path) -> None:
    """Change one byte in the last file of a stored bundle."""
    data = bytearray(stored.read_bytes())
    data[data.index(WEIGHTS.encode()) + 2048] ^= 1
    stored.chmod(0o600)
    stored.write_bytes(data)


def spec_of(model_id: str) -> dict[str, object]:
    """Return the spec of a model with a bundle of its own."""
    return {
        "version": 0,
        "model": model_id,
        "description": "A model with bad weights.",
        "owner": {"team": "demo", "contact": "demo@forestay.invalid"},
        "licence": "Apache-2.0",
        "host": {"kind": "fal_app", "app": "app.py::Model"},
        "endpoints": [{"path": "/"}],
        "resources": {"pool": "cpu", "devices": 0, "memory_mb": 100},
    }
