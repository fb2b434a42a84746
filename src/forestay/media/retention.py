"""The loop that ends media: expired files, abandoned quarantine, abandoned uploads. Run by the controller.

Decides only how much one run does; what is due is the stores' business, by the database's clock.
"""

from forestay.media.store import MediaStore

BATCH = 500


async def run_once(media: MediaStore) -> int:
    """Delete at most one batch of each kind; returns how many ended, so that the caller may run again at once."""
    return await media.delete_expired(BATCH) + await media.uploads.sweep(BATCH)
