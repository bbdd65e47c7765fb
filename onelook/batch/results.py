"""The rows: what an earlier run left in OUT, and the table that this one writes there."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from onelook.batch.sources import Item
from onelook.batch.stages import ROW_FILE, Job, Row
from onelook.engine import OUTPUTS

FORMATS = ("parquet", "csv", "jsonl")


def finished_row(item: Item, job: Job) -> Row | None:
    """The row of a picture that is done as it would be done now, with all its files; else None."""
    folder = Path(job.out, item.name)
    try:
        row = json.loads((folder / ROW_FILE).read_text("utf-8"))
        files = [row[output] for output in OUTPUTS if row.get(output)]
        same = row["fingerprint"] == job.fingerprint(item) and row["status"] == "succeeded"
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return row if same and all(Path(job.out, file).is_file() for file in files) else None


def write_results(rows: Sequence[Row], out: Path, format: str) -> Path:
    """Write the table `results` in one of FORMATS, whole or not at all; returns its path."""
    path = out / f"results.{format}"
    part = path.with_name(f".{path.name}")
    out.mkdir(parents=True, exist_ok=True)
    if format == "jsonl":
        part.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    else:
        _write_table(rows, part, format)
    os.replace(part, path)
    return path


def _write_table(rows: Sequence[Row], path: Path, format: str) -> None:
    import pyarrow as arrow
    from pyarrow import csv, parquet

    numbers = {"seed": arrow.int64(), "faces": arrow.int64(), "seconds": arrow.float64()}
    schema = arrow.schema([(name, numbers.get(name, arrow.string())) for name in rows[0]])
    table = arrow.Table.from_pylist(list(rows), schema)
    if format == "csv":
        csv.write_csv(table, path)
    else:
        parquet.write_table(table, path)
