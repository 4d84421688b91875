"""Runs one job on Tidegate and on DuckDB, by turns and on the same files, and prints wall time and peak memory.

The jobs stand in jobs.py: a filter with functions over click events, and lines joined with their orders, both written
as zstd Parquet (Tidegate's as an Iceberg table, committed). Both answers are compared before anything is printed.
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

from jobs import JOBS, Job


def generated(folder: Path, job: Job, rows: int) -> None:
    making = folder.with_name(f"{folder.name}.making")
    making.mkdir(parents=True)
    job.generate(making, rows)
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


def tidegate(binary: Path, job: Job, data: Path, folder: Path, partitioned: bool) -> list[str]:
    spec = folder / "spec.yaml"
    sources = "".join(
        f'  {table}:\n    files: {{path: "{data}/{table}/*.parquet"}}\n    event_time: {{column: {time}}}\n'
        for table, time in job.tables.items()
    )
    partition = f'\n    partition_by: ["{job.partition}"]' if partitioned else ""
    spec.write_text(f"""version: 1
kind: backfill
name: peers
window: {job.window}
alignment: {{max_drift: {job.drift}}}
sources:
{sources}outputs:
  out:
    table: bench.out
    sql: "{job.select}"{partition}
""")
    return [str(binary), "run", "--local", "--yes", "--state", str(folder / "state"), str(spec)]


def duck(job: Job, data: Path, folder: Path, threads: int) -> list[str]:
    target = folder / "out"
    views = "".join(f"c.execute(\"CREATE VIEW {table} AS SELECT * FROM '{data}/{table}/*.parquet'\"); " for table in job.tables)
    program = (
        f"import duckdb; c = duckdb.connect(); c.execute('SET threads = {threads}'); "
        f"c.execute('SET preserve_insertion_order = false'); c.execute(\"SET TimeZone = 'UTC'\"); {views}"
        f"c.execute(\"\"\"COPY ({job.select}) TO '{target}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, PER_THREAD_OUTPUT)\"\"\")"
    )
    return [sys.executable, "-c", program]


def checksum(job: Job, pattern: str) -> tuple:
    """What two equal answers have in common, whatever the order of their rows."""
    return duckdb.sql(f"SELECT {job.checksum} FROM read_parquet('{pattern}', hive_partitioning = false)").fetchall()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tidegate", type=Path, required=True, help="a release binary")
    parser.add_argument("--job", choices=sorted(JOBS), default="clicks")
    parser.add_argument("--rows", type=int, help="of the largest table")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--data", type=Path, help="where the input is kept; made where it is missing")
    parser.add_argument("--partitioned", action="store_true", help="Tidegate's table is partitioned by day")
    options = parser.parse_args()
    job = JOBS[options.job]
    rows = options.rows or job.rows
    scratch = Path(tempfile.mkdtemp(prefix="tidegate-peers-"))
    data = options.data or scratch / "data"
    try:
        if not data.exists():
            generated(data, job, rows)
        largest = next(iter(job.tables))
        [(found,)] = duckdb.sql(f"SELECT count(*) FROM '{data}/{largest}/*.parquet'").fetchall()
        if found != rows:
            sys.exit(f"{data} holds {found:,} rows, not {rows:,}: name another folder with --data")
        size = sum(file.stat().st_size for file in data.glob("*/*.parquet")) / 1e6
        print(f"{rows:,} rows, {size:,.0f} MB of Parquet, {options.threads} threads")
        compare(options, job, data, scratch)
    finally:
        shutil.rmtree(scratch)


def compare(options: argparse.Namespace, job: Job, data: Path, scratch: Path) -> None:
    figures: dict[str, list[tuple[float, float, float]]] = {"tidegate": [], "duckdb": []}
    written = {}
    for run in range(options.runs):
        sums = {}
        for side in figures:
            folder = scratch / f"{side}-{run}"
            folder.mkdir()
            if side == "tidegate":
                command = tidegate(options.tidegate, job, data, folder, options.partitioned)
                env = os.environ | {"TIDEGATE_WORKER_SLOTS": str(options.threads)}
                result = folder / "state/warehouse/**/*.parquet"
            else:
                command, env = duck(job, data, folder, options.threads), dict(os.environ)
                result = folder / "out/*.parquet"
            figures[side].append(measured(command, env, folder / "log"))
            sums[side] = checksum(job, str(result))
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
