"""Reads a topic from end to end in one batch of Spark and writes its columns as zstd Parquet. Prints the seconds without Spark's start."""

import argparse
import time
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql.avro.functions import from_avro
from pyspark.sql.functions import col, from_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jars", required=True, help="the folder of what Spark reads Kafka and Avro with")
    parser.add_argument("--servers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--ddl", required=True, help="the columns of the JSON objects")
    parser.add_argument("--avsc", type=Path, help="the records' Avro schema, where they are no JSON")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.extraClassPath", f"{options.jars}/*")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.parquet.compression.codec", "zstd")
        .config("spark.hadoop.parquet.compression.codec.zstd.level", "1")
        .getOrCreate()
    )
    begun = time.monotonic()
    source = spark.read.format("kafka").option("kafka.bootstrap.servers", options.servers)
    records = source.option("subscribe", options.topic).option("startingOffsets", "earliest").load()
    if options.avsc:
        event = from_avro(col("value"), options.avsc.read_text())
    else:
        event = from_json(col("value").cast("string"), options.ddl)
    records.select(event.alias("event")).select("event.*").write.parquet(options.out)
    print(time.monotonic() - begun)
    spark.stop()


if __name__ == "__main__":
    main()
