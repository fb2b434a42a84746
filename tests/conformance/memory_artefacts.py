"""Reports on models' files and trusted keys in memory: an adapter of `artefacts.store.ArtefactStore`."""

from forestay.artefacts.folder import examine_tar
from forestay.artefacts.report import Report, from_json, to_json
from forestay.artefacts.signing import TrustedKey
from forestay.artefacts.source import BytesSource
from forestay.artefacts.store import StoredKey
from forestay.clock import Clock


class MemoryArtefactStore:
    """Keeps everything until the test ends."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reports: dict[str, bytes] = {}
        self._keys: dict[str, StoredKey] = {}

    async def save_report(self, bundle_digest: str, report: Report) -> None:
        """Keep the report on a bundle."""
        self._reports[bundle_digest] = to_json(report)

    async def report(self, bundle_digest: str) -> Report | None:
        """Return the report on a bundle."""
        data = self._reports.get(bundle_digest)
        return None if data is None else from_json(data)

    async def trusted_keys(self) -> list[StoredKey]:
        """List the trusted keys by name."""
        return [self._keys[name] for name in sorted(self._keys)]

    async def trust(self, key: TrustedKey, *, actor: str) -> bool:
        """Trust a key; False when its name or the key itself is there already."""
        if any(item.key.name == key.name or item.key.fingerprint == key.fingerprint for item in self._keys.values()):
            return False
        self._keys[key.name] = StoredKey(key, actor, self._clock.now())
        return True

    async def distrust(self, name: str, *, actor: str) -> bool:
        """Stop trusting a key; False when there is none of that name."""
        del actor
        return self._keys.pop(name, None) is not None


def report_on(tar: bytes) -> Report:
    """Return the report that a deploy would have made of a bundle, without the child."""
    seen = examine_tar(BytesSource(tar))
    return Report(seen.files, seen.findings)
