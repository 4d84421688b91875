"""Replays topics of JSON and of Avro events into Iceberg tables, by turns with a drain of the same topics and, with
`--spark`, with Spark's batch read of them into Parquet.

A broker of its own, in one JVM, keeps the topics; what it and its page cache take is its own and not counted. Prints
wall time, its shortest and longest, CPU time, that of the broker meanwhile, the bytes of values a second, the same for
each core of CPU time, peak memory of all processes of the job, and what part of the drain's rate that is.
`cargo xtask bench kafka` builds what it needs and calls this with it.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from pyarrow import parquet

SETTINGS = """\
process.roles=broker,controller
node.id=1
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.retention.ms=-1
auto.create.topics.enable=true
group.initial.rebalance.delay.ms=0
"""
COLUMNS = [("ts", "bigint"), ("event_id", "bigint"), ("user_id", "bigint"), ("item_id", "bigint"), ("kind", "varchar"),
           ("price", "double"), ("url", "varchar")]
AVRO = {"bigint": "long", "varchar": "string", "double": "double"}
SPARK = {"bigint": "BIGINT", "varchar": "STRING", "double": "DOUBLE"}
PARTITIONS = 4


class Broker:
    """One JVM on free ports of this machine, with its own folder."""

    def __init__(self, jars: Path, folder: Path) -> None:
        self.java = ["java", "-Xmx1g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-classpath", f"{jars}/*"]
        ports = []
        for _ in range(2):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                ports.append(free.getsockname()[1])
        self.address, there = (f"127.0.0.1:{port}" for port in ports)
        settings = folder / "server.properties"
        settings.write_text(
            f"{SETTINGS}listeners=PLAINTEXT://{self.address},CONTROLLER://{there}\n"
            f"advertised.listeners=PLAINTEXT://{self.address}\ncontroller.quorum.voters=1@{there}\n"
            f"num.partitions={PARTITIONS}\nlog.dirs={folder / 'data'}\n"
        )
        format = ["kafka.tools.StorageTool", "format", "--cluster-id", "tidegate-bench-kafka-0", "--config", str(settings)]
        subprocess.run(self.java + format, check=True, capture_output=True)
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(self.java + ["kafka.Kafka", str(settings)], stdout=self.log, stderr=self.log)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


class Measured(NamedTuple):
    """What a job took: seconds, seconds of CPU time, those of the broker meanwhile, MiB, and what it said."""

    wall: float
    cpu: float
    broker: float
    peak: float
    said: str


def of_process(pid: int) -> tuple[float, float]:
    """CPU seconds and resident MiB of a process; nothing of one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    try:
        children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:
        children = []
    return [pid, *(member for child in children for member in family(child))]


def measured(command: list[str], folder: Path, broker: int) -> Measured:
    """Runs a command; `broker` is a process that works for it."""
    cpu: dict[int, float] = {}
    peak, before, begun = 0.0, of_process(broker)[0], time.monotonic()
    with (folder / "out").open("w+b") as out, (folder / "err").open("w+b") as err:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=err)
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            members = {pid: of_process(pid) for pid in family(process.pid)}
            cpu |= {pid: seconds for pid, (seconds, _) in members.items()}
            peak = max(peak, sum(resident for _, resident in members.values()))
            time.sleep(0.02)
        wall = time.monotonic() - begun
        _, status, usage = ended
        out.seek(0)
        err.seek(0)
        said, errors = out.read().decode(), err.read().decode()
    if status != 0:
        sys.exit(f"{' '.join(command)} failed:\n{errors}")
    # The kernel counts the process and the children that it waited for, exactly; the looks count all, but for their last moment.
    seconds = max(usage.ru_utime + usage.ru_stime, sum(cpu.values()))
    return Measured(wall, seconds, of_process(broker)[0] - before, max(peak, usage.ru_maxrss / 1024), said)


def avro_schema() -> str:
    fields = [{"name": name, "type": AVRO[type]} for name, type in COLUMNS]
    return json.dumps({"type": "record", "name": "event", "fields": fields})


def spec(folder: Path, broker: Broker, topic: str, kind: str) -> Path:
    if kind == "json":
        given = ", ".join(f"{{name: {name}, type: {type}}}" for name, type in COLUMNS)
        format = f"{{type: json, schema: [{given}]}}"
    elif kind == "avro":
        (folder / "events.avsc").write_text(avro_schema())
        format = "{type: avro, avro_schema: events.avsc}"
    else:
        format = "{type: raw}"
    path = folder / "spec.yaml"
    path.write_text(f"""version: 1
kind: backfill
name: events
sources:
  events:
    kafka:
      topic: {topic}
      properties: {{bootstrap.servers: "{broker.address}"}}
      format: {format}
outputs:
  events: {{table: bench.events}}
""")
    return path


def drain(options: argparse.Namespace, folder: Path, broker: Broker, topic: str) -> Measured:
    return measured([str(options.load), "drain", broker.address, topic], folder, broker.process.pid)


def replay(options: argparse.Namespace, folder: Path, broker: Broker, topic: str, kind: str) -> Measured:
    command = [str(options.tidegate), "run", "--local", "--yes", "-o", "json", "--state", str(folder / "state")]
    run = measured(command + [str(spec(folder, broker, topic, kind))], folder, broker.process.pid)
    check(kind, json.loads(run.said)["outputs"][0]["rows_committed"], options.events)
    return run


def spark(options: argparse.Namespace, folder: Path, broker: Broker, topic: str) -> Measured:
    """Spark's batch read of the topic into Parquet."""
    ddl = ", ".join(f"{name} {SPARK[type]}" for name, type in COLUMNS)
    command = [f"{options.spark}/venv/bin/python", str(Path(__file__).with_name("spark.py")), "--jars", f"{options.spark}/jars"]
    command += ["--servers", broker.address, "--topic", topic, "--ddl", ddl, "--out", str(folder / "table")]
    if topic == "avro":
        (folder / "events.avsc").write_text(avro_schema())
        command += ["--avsc", str(folder / "events.avsc")]
    run = measured(command, folder, broker.process.pid)
    files = (folder / "table").glob("*.parquet")
    check("spark", sum(parquet.read_metadata(file).num_rows for file in files), options.events)
    return run


def check(job: str, found: int, events: int) -> None:
    if found != events:
        sys.exit(f"{job}: {found:,} rows are there, of {events:,} events")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tidegate", type=Path, required=True, help="a release binary")
    parser.add_argument("--load", type=Path, required=True, help="the release binary kafka_load")
    parser.add_argument("--jars", type=Path, required=True, help="the folder of Kafka's jars")
    parser.add_argument("--spark", type=Path, help="the folder of Spark's environment (venv) and its jars (jars)")
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="tidegate-kafka-"))
    broker = Broker(options.jars, scratch)
    try:
        compare(options, scratch, broker)
    finally:
        broker.stop()
        shutil.rmtree(scratch)


def compare(options: argparse.Namespace, scratch: Path, broker: Broker) -> None:
    jobs = [("drain", "json"), ("json", "json"), ("raw", "json"), ("drain", "avro"), ("avro", "avro")]
    jobs += [("spark", "json"), ("spark", "avro")] if options.spark else []
    for topic in ["json", "avro"]:
        subprocess.run([options.load, "fill", broker.address, topic, topic, str(options.events)], check=True)
        # Once unmeasured: a broker that has just started is slower at first.
        subprocess.run([options.load, "drain", broker.address, topic], check=True, stdout=subprocess.DEVNULL)
    runs: dict[tuple[str, str], list[Measured]] = {job: [] for job in jobs}
    for number in range(options.runs):
        for job, topic in jobs:
            folder = scratch / f"{job}-{topic}-{number}"
            folder.mkdir()
            if job == "drain":
                run = drain(options, folder, broker, topic)
            elif job == "spark":
                run = spark(options, folder, broker, topic)
            else:
                run = replay(options, folder, broker, topic, job)
            runs[job, topic].append(run)
            print(f"{number + 1}: {job} {topic}: {run.wall:.2f} s, {run.cpu:.2f} s of CPU time", file=sys.stderr, flush=True)
            shutil.rmtree(folder)
    tell(options, runs)


def tell(options: argparse.Namespace, runs: dict[tuple[str, str], list[Measured]]) -> None:
    sizes = {topic: json.loads(runs["drain", topic][0].said)["bytes"] / 1e6 for topic in ["json", "avro"]}
    walls = {job: statistics.median(run.wall for run in of_job) for job, of_job in runs.items()}
    print(f"{options.events:,} events, {PARTITIONS} partitions; " + ", ".join(f"{t} {s:,.0f} MB" for t, s in sizes.items()))
    print(f"{'':<12} {'wall s: min, median, max':>24} {'cpu s':>7} {'broker':>7} {'MB/s':>6} {'MB/s/core':>10} {'peak MiB':>9} {'of drain':>9}")
    for (job, topic), of_job in runs.items():
        wall = [run.wall for run in of_job]
        cpu, busy, peak = (statistics.median(column) for column in list(zip(*of_job))[1:4])
        size, median = sizes[topic], walls[job, topic]
        print(
            f"{job + ' ' + topic:<12} {min(wall):8.2f} {median:7.2f} {max(wall):7.2f} {cpu:7.2f} {busy:7.2f} {size / median:6.0f} "
            f"{size / cpu:10.0f} {peak:9.0f} {walls['drain', topic] / median:9.2f}"
        )
    for topic in ["json", "avro"] if options.spark else []:
        read = statistics.median(float(run.said) for run in runs["spark", topic])
        spark, own = walls["spark", topic], walls[topic, topic]
        print(f"{topic}: Spark takes {spark / own:.1f} times as long, {read / own:.1f} times without its start ({read:.1f} s)")


if __name__ == "__main__":
    main()
