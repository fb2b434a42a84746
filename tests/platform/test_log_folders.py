"""Every log of a laptop's platform is kept small, those of the embedded servers too."""

import pathlib
import tempfile
from collections.abc import Iterator

import pytest

from forestay.data_dir import DataDir
from forestay.local_platform import log_folders
from forestay.storage.embedded import EmbeddedPostgres
from forestay.supervisor import cap_logs


@pytest.fixture
def short_folder() -> Iterator[pathlib.Path]:
    """A folder whose sockets have short names."""
    with tempfile.TemporaryDirectory(prefix="fs-", ignore_cleanup_errors=True) as name:
        yield pathlib.Path(name)


def test_the_embedded_postgres_goes_on_in_an_empty_log(short_folder: pathlib.Path) -> None:
    """It appends, so that what it says after the cut is at the beginning of the file."""
    folder = DataDir(short_folder)
    folder.prepare()
    server = EmbeddedPostgres(folder.root, fsync=False)
    server.start()
    log = folder.root / "postgres" / "postgres.log"
    try:
        with log.open("ab") as writer:
            writer.write(b"x" * 10_000)
        turned = [name for place in log_folders(folder) for name in cap_logs(place, 5_000)]
        assert turned == ["postgres.log"]
        assert log.stat().st_size == 0
    finally:
        server.stop()  # says that it shuts down
    assert log.read_bytes()[:1] not in {b"", b"\0"}
    assert (folder.root / "postgres" / "postgres.log.1").stat().st_size >= 10_000


def test_without_embedded_servers_only_our_own_logs_are_looked_at(tmp_path: pathlib.Path) -> None:
    """Their folders are not there."""
    assert log_folders(DataDir(tmp_path)) == [tmp_path / "logs"]
