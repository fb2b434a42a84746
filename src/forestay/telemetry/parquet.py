"""The adapter to pyarrow: facts as Parquet files, compressed by zstd. Needs the extra `parquet` (pyarrow)."""

# pyarrow brings no types: this adapter is where they begin.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingTypeArgument=false

import pathlib
from collections.abc import Mapping, Sequence

import pyarrow as pa
from pyarrow import parquet

_TYPES = {
    "boolean": pa.bool_(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "double precision": pa.float64(),
    "timestamp with time zone": pa.timestamp("us", tz="UTC"),
}


class Parquet:
    """Parquet, one row group for each page."""

    suffix = "parquet"

    def open(self, path: pathlib.Path, kinds: Mapping[str, str]) -> "ParquetSheet":
        """Begin a file; what is neither number, time nor truth is text."""
        schema = pa.schema([(name, _TYPES.get(kind, pa.string())) for name, kind in kinds.items()])
        return ParquetSheet(parquet.ParquetWriter(str(path), schema, compression="zstd"), schema)


class ParquetSheet:
    """One file that is being written."""

    def __init__(self, writer: parquet.ParquetWriter, schema: pa.Schema) -> None:
        self._writer = writer
        self._schema = schema

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Append rows as one group."""
        self._writer.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=self._schema))

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
