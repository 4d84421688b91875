"""Runs one job on Tidegate and on DuckDB, by turns and on the same files, and prints wall time and peak memory.

The job: synthetic click events in Parquet, a filter, a function and a product, written as zstd Parquet (Tidegate's as
an Iceberg table, committed). Both answers are compared before anything is printed.
`cargo xtask bench peers` builds a release and calls this with it.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from glob import glob
from pathlib import Path

import duckdb

SELECT = (
    "SELECT ts, user_id, item_id, upper(kind) AS kind, price * 1.2 AS price, url, session, country "
    "FROM clicks WHERE kind <> 'share'"
)
FILES = 10


def generate(folder: Path, rows: int) -> None:
    """Click events in the order of their times, with a little disorder; the same for the same number of rows."""
    making = folder.with_name(f"{folder.name}.making")
    making.mkdir(parents=True)
    each = rows // FILES
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    for number in range(FILES):
        first = number * each
        query = f"""
            SELECT TIMESTAMPTZ '2026-01-01 00:00:00+00'
                     + to_microseconds(i * 100_000 + (hash(i) % 2_000_000)::BIGINT) AS ts,
                   (hash(i * 7) % 2_000_000)::BIGINT AS user_id,
                   (sqrt((hash(i * 11) % 1_000_000)::DOUBLE * 1_000))::BIGINT AS item_id,
                   (['view', 'view', 'view', 'click', 'click', 'cart', 'buy', 'share'])[1 + (hash(i * 13) % 8)::INT] AS kind,
                   (hash(i * 17) % 20_000)::DOUBLE / 100 AS price,
                   'https://shop.example/item/' || (hash(i * 11) % 30_000) || '?ref=' || printf('%016x', hash(i * 19)) AS url,
                   printf('%016x', hash(i // 20)) || printf('%04x', hash(i * 23) % 65536) AS session,
                   (['de', 'fr', 'us', 'gb', 'jp', 'br', 'in', 'za'])[1 + (hash(i * 29) % 8)::INT] AS country
            FROM range({first}, {first + each}) AS r(i)"""
        target = making / f"clicks-{number:02}.parquet"
        connection.execute(f"COPY ({query}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")
    making.rename(folder)


def measured(command: list[str], env: dict[str, str], log: Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak resident MiB of a command."""
    peak = 0
    begun = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out)
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - begun
    peak = usage.ru_maxrss / 1024
    if status != 0:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text()}")
    return wall, usage.ru_utime + usage.ru_stime, peak


def tidegate(binary: Path, data: Path, folder: Path, partitioned: bool) -> list[str]:
    spec = folder / "spec.yaml"
    partition = '\n    partition_by: ["day(ts)"]' if partitioned else ""
    spec.write_text(f"""version: 1
kind: backfill
name: clicks
window: {{from: 2026-01-01, to: 2027-01-01}}
alignment: {{max_drift: 10d}}
sources:
  clicks:
    files: {{path: "{data}/*.parquet"}}
    event_time: {{column: ts}}
outputs:
  clicks:
    table: bench.clicks
    sql: {SELECT}{partition}
""")
    return [str(binary), "run", "--local", "--yes", "--state", str(folder / "state"), str(spec)]


def duck(data: Path, folder: Path, threads: int) -> list[str]:
    target = folder / "out"
    program = (
        f"import duckdb; c = duckdb.connect(); c.execute('SET threads = {threads}'); "
        f"c.execute('SET preserve_insertion_order = false'); "
        f"c.execute(\"CREATE VIEW clicks AS SELECT * FROM '{data}/*.parquet'\"); "
        f"c.execute(\"\"\"COPY ({SELECT}) TO '{target}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, PER_THREAD_OUTPUT)\"\"\")"
    )
    return [sys.executable, "-c", program]


def checksum(pattern: str) -> tuple:
    """What two equal answers have in common, whatever the order of their rows."""
    return duckdb.sql(
        f"SELECT count(*), sum(user_id), sum(item_id), round(sum(price), 2), "
        f"sum(hash(epoch_us(ts), user_id, item_id, kind, price, url, session, country) % 1000003) "
        f"FROM read_parquet('{pattern}', hive_partitioning = false)"
    ).fetchall()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tidegate", type=Path, required=True, help="a release binary")
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--data", type=Path, help="where the input is kept; made where it is missing")
    parser.add_argument("--partitioned", action="store_true", help="Tidegate's table is partitioned by day")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="tidegate-peers-"))
    data = options.data or scratch / "data"
    try:
        if not data.exists():
            generate(data, options.rows)
        [(found,)] = duckdb.sql(f"SELECT count(*) FROM '{data}/*.parquet'").fetchall()
        if found != options.rows:
            sys.exit(f"{data} holds {found:,} rows, not {options.rows:,}: name another folder with --data")
        size = sum(file.stat().st_size for file in data.glob("*.parquet")) / 1e6
        print(f"{options.rows:,} rows, {size:,.0f} MB of Parquet in {FILES} files, {options.threads} threads")
        compare(options, data, scratch)
    finally:
        shutil.rmtree(scratch)


def compare(options: argparse.Namespace, data: Path, scratch: Path) -> None:
    figures: dict[str, list[tuple[float, float, float]]] = {"tidegate": [], "duckdb": []}
    written = {}
    for run in range(options.runs):
        sums = {}
        for side in figures:
            folder = scratch / f"{side}-{run}"
            folder.mkdir()
            if side == "tidegate":
                command = tidegate(options.tidegate, data, folder, options.partitioned)
                env = os.environ | {"TIDEGATE_WORKER_SLOTS": str(options.threads)}
                result = folder / "state/warehouse/**/*.parquet"
            else:
                command, env = duck(data, folder, options.threads), dict(os.environ)
                result = folder / "out/*.parquet"
            figures[side].append(measured(command, env, folder / "log"))
            sums[side] = checksum(str(result))
            written[side] = sum(Path(file).stat().st_size for file in glob(str(result), recursive=True)) / 1e6
            if run == options.runs - 1 and side == "tidegate":
                print((folder / "log").read_text())
            shutil.rmtree(folder)
        if sums["tidegate"] != sums["duckdb"]:
            sys.exit(f"the answers differ: {json.dumps(sums, default=str)}")
    print(f"{'':10} {'wall s: min, median, max':>26} {'cpu s':>8} {'peak MiB':>9} {'written MB':>11}")
    for side, runs in figures.items():
        walls = [wall for wall, _, _ in runs]
        cpu, peak = statistics.median(cpu for _, cpu, _ in runs), max(peak for _, _, peak in runs)
        wall = f"{min(walls):.1f} {statistics.median(walls):6.1f} {max(walls):6.1f}"
        print(f"{side:10} {wall:>26} {cpu:8.1f} {peak:9.0f} {written[side]:11.0f}")
    ratio = statistics.median(t[0] / d[0] for t, d in zip(figures["tidegate"], figures["duckdb"]))
    print(f"wall time against DuckDB, median of {options.runs} pairs: {ratio:.2f}x")


if __name__ == "__main__":
    main()
