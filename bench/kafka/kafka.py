"""Replays topics of JSON and of Avro events into Iceberg tables, by turns with a plain drain of the same topics.

A broker of its own, in one JVM, keeps the topics; its CPU time is its own and not counted. Prints wall time, the bytes of
values a second, the same for each core of CPU time, peak memory, and what part of the drain's rate that is.
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


def measured(command: list[str], folder: Path) -> tuple[float, float, float, str]:
    """Wall seconds, CPU seconds, peak resident MiB and stdout of a command."""
    begun = time.monotonic()
    with (folder / "out").open("w+b") as out, (folder / "err").open("w+b") as err:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - begun
        out.seek(0)
        err.seek(0)
        said, errors = out.read().decode(), err.read().decode()
    if status != 0:
        sys.exit(f"{' '.join(command)} failed:\n{errors}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, said


def spec(folder: Path, broker: Broker, topic: str, kind: str) -> Path:
    if kind == "json":
        given = ", ".join(f"{{name: {name}, type: {type}}}" for name, type in COLUMNS)
        format = f"{{type: json, schema: [{given}]}}"
    elif kind == "avro":
        fields = [{"name": name, "type": AVRO[type]} for name, type in COLUMNS]
        (folder / "events.avsc").write_text(json.dumps({"type": "record", "name": "event", "fields": fields}))
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


def replay(options: argparse.Namespace, folder: Path, broker: Broker, topic: str, kind: str) -> tuple[float, float, float]:
    command = [str(options.tidegate), "run", "--local", "--yes", "-o", "json", "--state", str(folder / "state")]
    wall, cpu, peak, said = measured(command + [str(spec(folder, broker, topic, kind))], folder)
    committed = json.loads(said)["outputs"][0]["rows_committed"]
    if committed != options.events:
        sys.exit(f"{kind}: {committed:,} rows are committed, of {options.events:,} events")
    return wall, cpu, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tidegate", type=Path, required=True, help="a release binary")
    parser.add_argument("--load", type=Path, required=True, help="the release binary kafka_load")
    parser.add_argument("--jars", type=Path, required=True, help="the folder of Kafka's jars")
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
    sizes = {}
    for topic in ["json", "avro"]:
        subprocess.run([options.load, "fill", broker.address, topic, topic, str(options.events)], check=True)
    figures: dict[str, list[tuple[float, float, float]]] = {}
    for run in range(options.runs):
        for job, topic in [("drain", "json"), ("json", "json"), ("raw", "json"), ("drain", "avro"), ("avro", "avro")]:
            folder = scratch / f"{job}-{topic}-{run}"
            folder.mkdir()
            if job == "drain":
                wall, cpu, peak, said = measured([str(options.load), "drain", broker.address, topic], folder)
                told = json.loads(said)
                sizes[topic] = told["bytes"] / 1e6
                wall = told["seconds"]
            else:
                wall, cpu, peak = replay(options, folder, broker, topic, job)
            figures.setdefault(f"{job} {topic}", []).append((wall, cpu, peak))
            shutil.rmtree(folder)
    print(f"{options.events:,} events, {PARTITIONS} partitions; " + ", ".join(f"{t} {s:,.0f} MB" for t, s in sizes.items()))
    print(f"{'job':<12} {'wall s':>8} {'MB/s':>8} {'MB/s/core':>10} {'peak MiB':>9} {'of drain':>9}")
    for job, runs in figures.items():
        wall, cpu, peak = (statistics.median(column) for column in zip(*runs))
        size = sizes[job.split()[1]]
        drain = statistics.median(run[0] for run in figures[f"drain {job.split()[1]}"])
        print(f"{job:<12} {wall:8.2f} {size / wall:8.0f} {size / cpu:10.0f} {peak:9.0f} {drain / wall:9.2f}")


if __name__ == "__main__":
    main()
