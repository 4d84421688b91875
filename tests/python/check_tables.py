"""Judges Iceberg tables with engines that are not Tidegate's: PyIceberg reads the catalog, DuckDB compares the rows.

Reads a JSON list of checks from standard input; writes a JSON list of verdicts to standard output, one a check:
{"table", "rows", "files", "snapshots", "spared", "problems"}. A table without problems holds exactly the rows of its
input. A check is
  catalog   {"name", "file", "warehouse"} of a SQLite catalog, or {"name", "uri"} of a REST catalog; "properties" for more
  table     namespace.name
  input     Parquet files (globs): what the query is about
  others    [{"name", "input", "window"}]: other tables that the query reads
  branch    the branch that is read and judged, or null: main
  query     SQL over the table `input`: the rows that the table must hold, each as often; null: no commit may be there
  time      the event-time column of the input and of the table
  window    [from, to) in microseconds that the input is restricted to, or null
  backfill  the id whose markers every snapshot carries, or null where others write too
  may_miss  Parquet files whose rows may be missing, or null: then none may
"""

import datetime
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
    branch = check["branch"] or "main"
    head = table.metadata.refs.get(branch)
    if head is None and branch != "main":
        return {"table": check["table"], "rows": 0, "files": 0, "snapshots": 0, "spared": 0, "problems": ["no such branch"]}
    head = head and head.snapshot_id
    files = [local(task.file.file_path) for task in table.scan(snapshot_id=head).plan_files()]
    rows = table.scan(snapshot_id=head).to_arrow()
    ancestry = chain(table.metadata, head)
    history(table, ancestry, files, rows.num_rows, check, problems)
    if check["query"] is not None:
        contents(table, files, rows, check, problems)
    elif ancestry:
        problems.append(f"{len(ancestry)} snapshots with {rows.num_rows} rows where none should be")
    return {
        "table": check["table"],
        "rows": rows.num_rows,
        "files": len(files),
        "snapshots": len(ancestry),
        "spared": pruning(table, head, rows, check["time"], problems),
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


def history(table, ancestry, live, rows, check, problems) -> None:
    """Every file is added by one snapshot, markers are a chain, promises never fall, totals are right."""
    backfill, branch = check["backfill"], check["branch"]
    key = f"tidegate.{backfill}" + (f"@{branch}" if branch else "")
    known = {snapshot.snapshot_id for snapshot in ancestry}
    astray = [one for one in table.metadata.snapshots if one.snapshot_id not in known and not is_staged(one)]
    if astray and not branch:
        problems.append(f"{len(astray)} snapshots are neither in the ancestry of main nor were they staged")
    seen, total, sequence, through = {}, 0, -1, ""
    for snapshot in ancestry:
        summary = snapshot.summary.additional_properties if snapshot.summary else {}
        where = f"snapshot {snapshot.snapshot_id}"
        added, added_rows = [], 0
        for manifest in snapshot.manifests(table.io):
            if manifest.added_snapshot_id != snapshot.snapshot_id:
                continue
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
                if entry.status == ManifestEntryStatus.EXISTING and is_overwrite(snapshot):
                    continue
                if entry.status == ManifestEntryStatus.DELETED and is_overwrite(snapshot):
                    if seen.pop(entry.data_file.file_path, None) is None:
                        problems.append(f"{where}: {entry.data_file.file_path} is removed and was not there")
                    total -= entry.data_file.record_count
                    continue
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
        marker = summary.get(key)
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
        if snapshot is ancestry[-1] and table.properties.get(key) != marker:
            problems.append(f"the table's marker is {table.properties.get(key)}, the last snapshot's {marker}")
    if sorted(map(local, seen)) != sorted(live):
        problems.append(f"{len(seen)} files were added, {len(live)} are live")
    if total != rows:
        problems.append(f"the manifests count {total} rows, the files hold {rows}")


def instant(text: str):
    """An RFC 3339 time in UTC, with or without a fraction, as something that has an order."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return (whole, fraction.ljust(9, "0"))


def is_overwrite(snapshot) -> bool:
    return snapshot.summary is not None and snapshot.summary.operation.value == "overwrite"


def is_staged(snapshot) -> bool:
    """Whether a snapshot was committed to a staging branch."""
    summary = snapshot.summary.additional_properties if snapshot.summary else {}
    return any(name.startswith("tidegate.") and "@" in name for name in summary)


def chain(metadata, head) -> list:
    """The snapshots from the first to `head`."""
    found, at = [], head
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
    for other in check["others"]:
        read_window(db, other["name"], other["input"], {**check, "window": other["window"]})
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


def pruning(table, head, rows, time, problems) -> int:
    """A scan of one month or day touches its files only, and finds all its rows. How many files it was spared."""
    cuts = [str(field.transform) for field in table.spec().fields if str(field.transform) in ("month", "day")]
    if rows.num_rows == 0 or not cuts or time not in rows.column_names:
        return 0
    first = pc.min(rows[time]).as_py().replace(hour=0, minute=0, second=0, microsecond=0)
    if cuts[0] == "month":
        first = first.replace(day=1)
        after = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
        number = (first.year - 1970) * 12 + first.month - 1
    else:
        after = first + datetime.timedelta(days=1)
        number = (first.date() - datetime.date(1970, 1, 1)).days
    within = And(GreaterThanOrEqual(time, first.isoformat()), LessThan(time, after.isoformat()))
    scan = table.scan(row_filter=within, snapshot_id=head)
    planned = list(scan.plan_files())
    span = f"[{first.isoformat()}, {after.isoformat()})"
    for task in planned:
        numbers = {value for value in task.file.partition if value is not None}
        if number not in numbers and first.date() not in numbers:
            problems.append(f"a scan of {span} plans {task.file.file_path} of partition {task.file.partition}")
    inside = pc.and_(pc.greater_equal(rows[time], pa.scalar(first, rows[time].type)),
                     pc.less(rows[time], pa.scalar(after, rows[time].type)))
    should = pc.sum(inside).as_py()
    if scan.to_arrow().num_rows != should:
        problems.append(f"a scan of {span} finds {scan.to_arrow().num_rows} rows, should find {should}")
    return sum(1 for _ in table.scan(snapshot_id=head).plan_files()) - len(planned)


main()
