"""The jobs that are compared: what they read, what they ask of it, and what equal answers have in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import duckdb

FILES = 10


@dataclass(frozen=True)
class Job:
    """One query over synthetic tables, each a folder of Parquet files in the order of event time."""

    rows: int
    """Rows of the largest table, unless more or fewer are asked for."""
    tables: dict[str, str]
    """The tables' names, with their event-time columns."""
    window: str
    drift: str
    select: str
    partition: str
    generate: Callable[[Path, int], None]
    checksum: str
    """Aggregates that two equal answers share, whatever the order of their rows."""


def write(folder: Path, table: str, number: int, query: str, group: int = 122_880) -> None:
    """One file, in row groups of so many rows."""
    target = folder / table / f"{table}-{number:02}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"COPY ({query}) TO '{target}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {group})")


def clicks(folder: Path, rows: int) -> None:
    """Click events with a little disorder; the same for the same number of rows."""
    each = rows // FILES
    for number in range(FILES):
        first = number * each
        write(folder, "clicks", number, f"""
            SELECT TIMESTAMPTZ '2026-01-01 00:00:00+00'
                     + to_microseconds(i * 100_000 + (hash(i) % 2_000_000)::BIGINT) AS ts,
                   (hash(i * 7) % 2_000_000)::BIGINT AS user_id,
                   (sqrt((hash(i * 11) % 1_000_000)::DOUBLE * 1_000))::BIGINT AS item_id,
                   (['view', 'view', 'view', 'click', 'click', 'cart', 'buy', 'share'])[1 + (hash(i * 13) % 8)::INT] AS kind,
                   (hash(i * 17) % 20_000)::DOUBLE / 100 AS price,
                   'https://shop.example/item/' || (hash(i * 11) % 30_000) || '?ref=' || printf('%016x', hash(i * 19)) AS url,
                   printf('%016x', hash(i // 20)) || printf('%04x', hash(i * 23) % 65536) AS session,
                   (['de', 'fr', 'us', 'gb', 'jp', 'br', 'in', 'za'])[1 + (hash(i * 29) % 8)::INT] AS country
            FROM range({first}, {first + each}) AS r(i)""")


def orders(folder: Path, rows: int) -> None:
    """Orders of seven years and their lines, four each, shipped one to 121 days later: as TPC-H has them at scale 1."""
    count = rows // 4
    order = f"""
        SELECT i AS o_orderkey, TIMESTAMPTZ '1992-01-01 00:00:00+00' + to_microseconds(i * (2_406 * 86_400_000_000 // {count})) AS o_time,
               (hash(i * 3) % 150_000)::BIGINT AS o_custkey, (hash(i * 5) % 50_000_000)::DOUBLE / 100 AS o_totalprice,
               (['1-URGENT', '2-HIGH', '3-MEDIUM', '4-NOT SPECIFIED', '5-LOW'])[1 + (hash(i * 7) % 5)::INT] AS o_orderpriority,
               'Clerk#' || printf('%09d', hash(i * 11) % 1_000) AS o_clerk
        FROM range(0, {count}) AS r(i)"""
    line = f"""
        SELECT o_orderkey AS l_orderkey, n AS l_linenumber,
               o_time + to_days((1 + hash(o_orderkey * 13 + n) % 121)::INT) AS l_time,
               (hash(o_orderkey * 17 + n) % 200_000)::BIGINT AS l_partkey, (hash(o_orderkey * 19 + n) % 10_000)::BIGINT AS l_suppkey,
               (1 + hash(o_orderkey * 23 + n) % 50)::DOUBLE AS l_quantity, (hash(o_orderkey * 29 + n) % 10_000_000)::DOUBLE / 100 AS l_extendedprice,
               (hash(o_orderkey * 31 + n) % 11)::DOUBLE / 100 AS l_discount, (['AIR', 'FOB', 'MAIL', 'RAIL', 'REG AIR', 'SHIP', 'TRUCK'])[1 + (hash(o_orderkey * 37 + n) % 7)::INT] AS l_shipmode
        FROM ({order}), range(0, 4) AS l(n)"""
    for number in range(FILES):
        within = f"TIMESTAMPTZ '1992-01-01 00:00:00+00' + to_days({number} * 253)"
        until = f"TIMESTAMPTZ '1992-01-01 00:00:00+00' + to_days({number + 1} * 253)"
        for table, query, time in (("orders", order, "o_time"), ("lineitem", line, "l_time")):
            write(folder, table, number, f"SELECT * FROM ({query}) WHERE {time} >= {within} AND {time} < {until} ORDER BY {time}", 20_480)


JOBS = {
    "clicks": Job(
        rows=20_000_000,
        tables={"clicks": "ts"},
        window="{from: 2026-01-01, to: 2027-01-01}",
        drift="10d",
        select="SELECT ts, user_id, item_id, upper(kind) AS kind, price * 1.2 AS price, url, session, country "
        "FROM clicks WHERE kind <> 'share'",
        partition="day(ts)",
        generate=clicks,
        checksum="count(*), sum(user_id), sum(item_id), round(sum(price), 2), "
        "sum(hash(epoch_us(ts), user_id, item_id, kind, price, url, session, country) % 1000003)",
    ),
    "join": Job(
        rows=6_000_000,
        tables={"lineitem": "l_time", "orders": "o_time"},
        window="{from: 1992-01-01, to: 1999-01-01}",
        drift="60d",
        select="SELECT l.l_time, l.l_orderkey, l.l_linenumber, l.l_partkey, l.l_suppkey, l.l_quantity, l.l_extendedprice, "
        "l.l_extendedprice * (1 - l.l_discount) AS revenue, l.l_shipmode, o.o_time, o.o_custkey, o.o_totalprice, "
        "o.o_orderpriority, o.o_clerk FROM lineitem l JOIN orders o ON l.l_orderkey = o.o_orderkey "
        "AND o.o_time BETWEEN l.l_time - INTERVAL '121' DAY AND l.l_time",
        partition="month(l_time)",
        generate=orders,
        checksum="count(*), sum(l_orderkey), sum(l_partkey), round(sum(revenue), 0), "
        "sum(hash(epoch_us(l_time), l_orderkey, l_linenumber, l_quantity, l_shipmode, epoch_us(o_time), o_custkey, o_clerk) % 1000003)",
    ),
}
