"""The data folder of a platform on one machine: what lies where, secrets made once, addresses remembered.

    DIR/lock  addresses.json          who has it; the ports of the last run, taken again when free
    DIR/secrets/                      keys of the platform itself, mode 0600
    DIR/model-secrets/                one file per secret that model specs may name
    DIR/postgres  DIR/valkey          the embedded servers
    DIR/objects                       media, large bodies, model bundles
    DIR/workers/{id}                  unpacked bundles, environments, sockets
    DIR/judge                         the socket of the judge, mode 0700
    DIR/tls  DIR/logs                 certificates; one log per process

It decides names and modes only. Called by the local platform, `forestay doctor` and `forestay tls`.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import cast

from forestay.chance import Chance
from forestay.errors import UsageError

_PRIVATE = 0o700
_PASSABLE = 0o711  # may be walked through by the uid of model code, not listed
_SECRET_BYTES = 32


class DataDir:
    """Paths below one folder."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root.absolute()
        self.secrets = self.root / "secrets"
        self.model_secrets = self.root / "model-secrets"
        self.objects = self.root / "objects"
        self.workers = self.root / "workers"
        self.judge = self.root / "judge"
        self.tls = self.root / "tls"
        self.logs = self.root / "logs"
        self.addresses_file = self.root / "addresses.json"

    def prepare(self) -> None:
        """Make what is missing; raises UsageError when the folder cannot be used."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.root.chmod(_PASSABLE)
            for folder in (self.secrets, self.model_secrets, self.objects, self.tls, self.logs):
                folder.mkdir(exist_ok=True)
                folder.chmod(_PRIVATE)
            self.workers.mkdir(exist_ok=True)
            self.workers.chmod(_PASSABLE)
        except OSError as error:
            raise UsageError("--data-dir", f"{self.root} cannot be used: {error.strerror}; choose another") from error

    def secret(self, name: str, chance: Chance) -> str:
        """Return the secret `name`, made at the first call and kept."""
        path = self.secrets / name
        known = self.kept(name)
        if known:
            return known
        value = chance.token(_SECRET_BYTES)
        write_private(path, value + "\n")
        return value

    def kept(self, name: str) -> str:
        """Return the secret `name` when there is one, else an empty text."""
        try:
            return (self.secrets / name).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""

    def keep(self, name: str, value: str) -> None:
        """Keep `value` as the secret `name`."""
        write_private(self.secrets / name, value + "\n")

    def addresses(self) -> dict[str, object]:
        """Return what the last run wrote about its addresses; empty when it never ran."""
        try:
            return cast("dict[str, object]", json.loads(self.addresses_file.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            return {}

    def port_of(self, name: str) -> int:
        """Return the port that the listener `name` had in the last run, 0 when it had none."""
        ports = self.addresses().get("ports")
        port = cast("dict[str, object]", ports).get(name) if isinstance(ports, dict) else None
        return port if isinstance(port, int) else 0

    def remember(self, addresses: Mapping[str, object]) -> None:
        """Keep addresses for the next run and for `forestay tls show`."""
        write_private(self.addresses_file, json.dumps(dict(addresses), indent=2) + "\n")


def write_private(path: pathlib.Path, text: str) -> None:
    """Write `text` atomically with mode 0600: a reader sees the old file or the whole new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
