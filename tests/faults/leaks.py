"""Where a canary stands that should not: logs, database, Redis, the journal's folder, and files beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import redis
from sqlalchemy import Connection, MetaData, select

from worker.store import Store


def find_leaks(canaries: Sequence[str], *, folders: Iterable[Path], store: Store, redis_url: str | None) -> list[str]:
    """Return where one of these texts stands in clear."""
    wanted = [canary.encode() for canary in canaries]
    return [
        f"a secret stands in {where}"
        for source in (_files(folders), _rows(store), _keys(redis_url))
        for where, content in source
        if any(canary in content for canary in wanted)
    ]


def _files(folders: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield path.name, path.read_bytes()


def _rows(store: Store) -> Iterator[tuple[str, bytes]]:
    def dump(connection: Connection) -> list[tuple[str, bytes]]:
        found = MetaData()
        found.reflect(connection)
        return [
            (f"the table {table.name}", repr([tuple(row) for row in connection.execute(select(table))]).encode())
            for table in found.sorted_tables
        ]

    yield from store.transact(dump, writes=False)


def _keys(redis_url: str | None) -> Iterator[tuple[str, bytes]]:
    if redis_url is None:
        return
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter():
            yield "Redis", bytes(key) + bytes(client.dump(key) or b"")
