"""Reads one Iceberg table by PyIceberg and writes its rows as a JSON list to standard output.

Standard input is {"catalog": {"name", "file", "warehouse"}, "table": "namespace.name"}. Bytes are written in hexadecimal,
times as ISO 8601.
"""

import json
import sys

from pyiceberg.catalog.sql import SqlCatalog


def main() -> None:
    asked = json.load(sys.stdin)
    place = asked["catalog"]
    catalog = SqlCatalog(place["name"], uri=f"sqlite:///{place['file']}", warehouse=place["warehouse"])
    rows = catalog.load_table(asked["table"]).scan().to_arrow().to_pylist()
    json.dump(rows, sys.stdout, default=lambda value: value.hex() if isinstance(value, bytes) else value.isoformat())


if __name__ == "__main__":
    main()
