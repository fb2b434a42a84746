"""Puts provenance together from the settings, for whoever stamps (workers) and whoever asks (gateways).

Decides only what is on: manifests where FORESTAY_PROVENANCE_DIR is set, watermarks where FORESTAY_WATERMARK_KEY is,
fingerprints always. Called by the wiring of gateways and workers.
"""

import datetime as dt
import pathlib

from forestay.media.decode import Decoder
from forestay.safety.provenance.fingerprints import PostgresFingerprints
from forestay.safety.provenance.identity import Identity, load_or_create_identity
from forestay.safety.provenance.made import Origins
from forestay.safety.provenance.stamp import Stamps
from forestay.safety.provenance.watermark import Watermark
from forestay.settings import Safety
from forestay.storage.postgres import Database


def identity_of(settings: Safety, now: dt.datetime) -> Identity | None:
    """Read or make the identity that signs manifests; None where the folder is not set."""
    return load_or_create_identity(pathlib.Path(settings.provenance_dir), now) if settings.provenance_dir else None


def watermark_of(settings: Safety) -> Watermark | None:
    """Return the watermark under the platform's key; None without one."""
    return Watermark(settings.watermark_key) if settings.watermark_key else None


def stamps_of(settings: Safety, decoder: Decoder, database: Database, now: dt.datetime) -> Stamps:
    """Return what stamps files before they are released."""
    return Stamps(decoder, PostgresFingerprints(database), identity_of(settings, now), watermark_of(settings))


def origins_of(settings: Safety, decoder: Decoder, database: Database, now: dt.datetime) -> Origins:
    """Return what tells whether a file was made here."""
    return Origins(decoder, PostgresFingerprints(database), identity_of(settings, now), watermark_of(settings))
