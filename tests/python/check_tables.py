"""Judges Iceberg tables with engines that are not Tidegate's: PyIceberg reads the catalog, DuckDB compares the rows.

Reads a JSON list of checks from standard input; writes a JSON list of verdicts to standard output, one a check:
{"table", "rows", "files", "snapshots", "spared", "problems"}. A table without problems holds exactly the rows of its
input. A check is
  catalog   {"name", "file", "warehouse"} of a SQLite catalog, or {"name", "uri"} of a REST catalog; "properties" for more
  table     namespace.name
  input     Parquet files (globs): what the query is about
  query     SQL over the table `input`: the rows that the table must hold, each as often; null: no commit may be there
  time      the event-time column of the input and of the table
  window    [from, to) in microseconds that the input is restricted to, or null
  backfill  the id whose markers every snapshot carries, or null where others write too
  may_miss  Parquet files whose rows may be missing, or null: then none may
"""

import hashlib
import json
import os
import sys
import tempfile

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import And, GreaterThanOrEqual, LessThan
from pyiceberg.manifest import ManifestEntryStatus


def main() -> None:
    json.dump([judge(check) for check in json.load(sys.stdin)], sys.stdout)


def judge(check) -> dict:
    problems = []
    catalog = open_catalog(check["catalog"])
    try:
        table = catalog.load_table(check["table"])
    except NoSuchTableError:
        missing = [] if check["query"] is None else ["no such table"]
        return {"table": check["table"], "rows": 0, "files": 0, "snapshots": 0, "spared": 0, "problems": missing}
    files = [local(task.file.file_path) for task in table.scan().plan_files()]
    rows = table.scan().to_arrow()
    history(table, files, rows.num_rows, check["backfill"], problems)
    if check["query"] is not None:
        contents(table, files, rows, check, problems)
    elif table.metadata.snapshots:
        problems.append(f"{len(table.metadata.snapshots)} snapshots with {rows.num_rows} rows where none should be")
    return {
        "table": check["table"],
        "rows": rows.num_rows,
        "files": len(files),
        "snapshots": len(table.metadata.snapshots),
        "spared": pruning(table, rows, check["time"], problems),
        "problems": problems,
    }


def open_catalog(place):
    properties = place.get("properties") or {}
    if "uri" in place:
        return RestCatalog(place["name"], uri=place["uri"], **properties)
    return SqlCatalog(place["name"], uri=f"sqlite:///{place['file']}", warehouse=place["warehouse"], **properties)


def local(path: str) -> str:
    return path.removeprefix("file://")


def on_disk(table, path: str, folder: str) -> str:
    """The file itself, or a copy of it where it is in a bucket: DuckDB alone cannot reach one."""
    if "://" not in path:
        return path
    copy = os.path.join(folder, path.replace("/", "_"))
    with table.io.new_input(path).open() as source, open(copy, "wb") as target:
        target.write(source.read())
    return copy


def history(table, live, rows, backfill, problems) -> None:
    """Every file is added by one snapshot, markers are a chain, promises never fall, totals are right."""
    ancestry = chain(table.metadata)
    if len(ancestry) != len(table.metadata.snapshots):
        problems.append(f"{len(table.metadata.snapshots)} snapshots, {len(ancestry)} of them in the ancestry of main")
    seen, total, sequence, through = {}, 0, -1, ""
    for snapshot in ancestry:
        summary = snapshot.summary.additional_properties if snapshot.summary else {}
        where = f"snapshot {snapshot.snapshot_id}"
        added, added_rows = [], 0
        for manifest in snapshot.manifests(table.io):
            if manifest.added_snapshot_id != snapshot.snapshot_id:
                continue
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
                if entry.status != ManifestEntryStatus.ADDED:
                    problems.append(f"{where}: {entry.data_file.file_path} is not added but {entry.status}")
                    continue
                added.append(entry.data_file.file_path)
                added_rows += entry.data_file.record_count
        for path in added:
            if path in seen:
                problems.append(f"{path} is added by {seen[path]} and by {where}")
            seen[path] = where
        total += added_rows
        for name, should in (("added-records", added_rows), ("added-data-files", len(added)),
                             ("total-records", total), ("total-data-files", len(seen))):
            if int(summary.get(name, 0)) != should:
                problems.append(f"{where}: {name} is {summary.get(name)}, should be {should}")
        if backfill is None:
            continue
        marker = summary.get(f"tidegate.{backfill}")
        if marker is None:
            problems.append(f"{where} has no marker of {backfill}: {summary}")
            continue
        number, digest = marker.split(":", 1)
        if int(number) <= sequence:
            problems.append(f"{where}: marker {marker} does not follow {sequence}")
        sequence = int(number)
        should = hashlib.sha256("".join(f"{path}\n" for path in added).encode()).hexdigest()
        if digest != should and not digest.startswith("cancelled:"):
            problems.append(f"{where}: marker {marker} is not that of its files, {should}")
        promised = summary.get("tidegate.committed-through", through)
        if instant(promised) < instant(through):
            problems.append(f"{where}: committed-through falls from {through} to {promised}")
        through = promised
        if snapshot is ancestry[-1] and table.properties.get(f"tidegate.{backfill}") != marker:
            problems.append(f"the table's marker is {table.properties.get(f'tidegate.{backfill}')}, the last snapshot's {marker}")
    if sorted(map(local, seen)) != sorted(live):
        problems.append(f"{len(seen)} files were added, {len(live)} are live")
    if total != rows:
        problems.append(f"the manifests count {total} rows, the files hold {rows}")


def instant(text: str):
    """An RFC 3339 time in UTC, with or without a fraction, as something that has an order."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return (whole, fraction.ljust(9, "0"))


def chain(metadata) -> list:
    """The snapshots from the first to main's head."""
    found, at = [], metadata.current_snapshot_id
    while at is not None:
        snapshot = metadata.snapshot_by_id(at)
        if snapshot is None:
            break
        found.append(snapshot)
        at = snapshot.parent_snapshot_id
    return found[::-1]


def contents(table, files, rows, check, problems) -> None:
    """The same multiset of rows as the input: by both engines, and the same sums by a third way."""
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    names = [field.name for field in table.schema().fields]
    read_window(db, "input", check["input"], check)
    db.execute(f"CREATE TABLE wanted AS {check['query']}")
    listed = ", ".join(f'"{name}"' for name in names)
    db.register("by_pyiceberg", rows)
    db.execute(f"CREATE TABLE pyiceberg AS SELECT {listed} FROM by_pyiceberg")
    if files:
        with tempfile.TemporaryDirectory() as folder:
            copies = [on_disk(table, path, folder) for path in files]
            db.execute(f"CREATE TABLE duckdb AS SELECT {listed} FROM read_parquet(?, hive_partitioning = false)", [copies])
    else:
        db.execute("CREATE TABLE duckdb AS FROM pyiceberg WHERE false")
    columns = db.sql("FROM wanted LIMIT 0").columns
    if sorted(columns) != sorted(names):
        problems.append(f"the table's columns are {names}, the query's {columns}")
        return
    db.execute(f"CREATE VIEW expected AS SELECT {listed} FROM wanted")
    for engine in ("pyiceberg", "duckdb"):
        foreign = count(db, f"SELECT * FROM {engine} EXCEPT ALL SELECT * FROM expected")
        if foreign:
            problems.append(f"{foreign} rows are in the table ({engine}) and not in the input, or too often")
        lacking = f"SELECT * FROM expected EXCEPT ALL SELECT * FROM {engine}"
        if check["may_miss"] is not None:
            read_window(db, "input", check["may_miss"], check)
            lacking += f" EXCEPT ALL SELECT {listed} FROM ({check['query']})"
        missing = count(db, lacking)
        if missing:
            problems.append(f"{missing} rows of the input are not in the table ({engine})")
    if check["may_miss"] is None:
        sums(db, rows, listed, problems)


def read_window(db, name, files, check) -> None:
    """Makes the rows of `files` that lie in the check's window the table `name`."""
    query = f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM read_parquet(?, hive_partitioning = false)"
    parameters = [files]
    if check["window"] is not None:
        query += f" WHERE epoch_us({check['time']}) >= ? AND epoch_us({check['time']}) < ?"
        parameters += check["window"]
    db.execute(query, parameters)


def count(db, query: str) -> int:
    return db.sql(f"SELECT count(*) FROM ({query})").fetchall()[0][0]


def sums(db, rows, listed, problems) -> None:
    """Sums of whole numbers, computed by Arrow over the table and over the input."""
    expected = db.sql(f"SELECT {listed} FROM expected").to_arrow_table()
    for field in rows.schema:
        if pa.types.is_integer(field.type):
            ours, theirs = pc.sum(rows[field.name]).as_py(), pc.sum(expected[field.name]).as_py()
            if ours != theirs:
                problems.append(f"sum({field.name}) is {ours}, should be {theirs}")


def pruning(table, rows, time, problems) -> int:
    """A scan of one month touches that month's files only, and finds all its rows. How many files it was spared."""
    if rows.num_rows == 0 or not any("month" in str(field.transform) for field in table.spec().fields):
        return 0
    middle = pc.min(rows[time]).as_py()
    first = middle.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    after = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    within = And(GreaterThanOrEqual(time, first.isoformat()), LessThan(time, after.isoformat()))
    scan = table.scan(row_filter=within)
    planned = list(scan.plan_files())
    number = (first.year - 1970) * 12 + first.month - 1
    for task in planned:
        months = {value for value in task.file.partition if value is not None}
        if number not in months:
            problems.append(f"a scan of {first:%Y-%m} plans {task.file.file_path} of partition {task.file.partition}")
    inside = pc.and_(pc.greater_equal(rows[time], pa.scalar(first, rows[time].type)),
                     pc.less(rows[time], pa.scalar(after, rows[time].type)))
    should = pc.sum(inside).as_py()
    if scan.to_arrow().num_rows != should:
        problems.append(f"a scan of {first:%Y-%m} finds {scan.to_arrow().num_rows} rows, should find {should}")
    return sum(1 for _ in table.scan().plan_files()) - len(planned)


main()
