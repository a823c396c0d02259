"""Kept connections against new ones: how many token calls end in doubt if the server closes idle connections.

Run it from the project's root: `python -m benchmarks.kept`. Servers close idle connections unannounced, with FIN or
with RST, plain and inside TLS: at moments around the longest idle time that the client allows, right after an answer,
seldom, or all at once as a restart does. Against each of them calls are made over the connections that the client
keeps, and over new ones: fewer of those, since none of them has ever been in doubt. A life is one process's: each
begins without proof that the server keeps connections, makes its calls in bursts from several threads, and pauses
between the bursts. A repeat of a call is no part of it. It exits 1 if a larger part of the calls was in doubt over
kept connections than over new ones.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import trustme
from rich.console import Console
from rich.table import Table

from benchmarks.standin import APP_ID, APP_SECRET, pair_of
from worker.egress import Egress
from worker.egress.wire import IDLE_SECONDS
from worker.errors import NotSentError
from worker.tiktok import TikTok
from worker.vault import Token

THREADS: Final = 8
BURST: Final = 25
LONGEST_PAUSE: Final = 2 * IDLE_SECONDS
LIVES: Final = 2
SELDOM: Final = 0.005
HOW: Final = {
    "steady": "never within the run",
    "around": "at a random moment up to twice the client's longest idle time",
    "at": "at the client's longest idle time, give or take 20 ms",
    "after": "within 5 ms after each answer",
    "seldom": "one in 200, at a random moment of up to 1 s",
    "restart": "all idle ones at once, every 0.5 to 3 s",
}
console: Final = Console(width=130)


@dataclass(frozen=True)
class Server:
    """How a server closes idle connections.

    Attributes:
        how: one of `HOW`.
        reset: True for RST, False for FIN.
        tls: True inside TLS.
    """

    how: str
    reset: bool
    tls: bool

    def patience(self) -> float | None:
        """Return after how many idle seconds a connection is closed; None if it stays open."""
        match self.how:
            case "around":
                return random.uniform(0, 2 * IDLE_SECONDS)  # noqa: S311 - no secret
            case "at":
                return random.uniform(IDLE_SECONDS - 0.02, IDLE_SECONDS + 0.02)  # noqa: S311 - no secret
            case "after":
                return random.uniform(0, 0.005)  # noqa: S311 - no secret
            case "seldom" if random.random() < SELDOM:  # noqa: S311 - no secret
                return random.uniform(0, 1)  # noqa: S311 - no secret
            case _:
                return None


@dataclass
class Found:
    """What came of the calls against one server over one kind of connection."""

    calls: int = 0
    connections: int = 0
    in_doubt: int = 0
    not_sent: int = 0
    seconds: float = 0.0

    def add(self, other: Found) -> None:
        """Add what another life found."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


class Line(asyncio.Protocol):
    """One connection of a server."""

    def __init__(self, server: Server, lines: set[Line], counts: Counter[str]) -> None:
        self._server, self._lines, self._counts = server, lines, counts
        self._buffer = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: Any = None
        self.idle = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        self._transport = transport
        self._lines.add(self)
        self._counts["connections"] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop counting the connection."""
        del exc
        self._busy()
        self._lines.discard(self)

    def data_received(self, data: bytes) -> None:
        """Answer a whole request, and begin to be idle."""
        self._busy()
        self._buffer += data
        head, end, body = bytes(self._buffer).partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0):
            return
        self._buffer.clear()
        close = b"connection: close" in head.lower()
        answer = json.dumps({"code": 0, "message": "OK", "request_id": "1", "data": pair_of("creator", 2)}).encode()
        lines = b"Connection: close\r\n" if close else b""
        self._transport.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (lines, len(answer)) + answer)
        if close:
            self._transport.close()
            return
        self.idle = True
        patience = self._server.patience()
        if patience is not None:
            self._timer = asyncio.get_running_loop().call_later(patience, self.hang_up)

    def hang_up(self) -> None:
        """Close the connection unannounced."""
        self._counts["closed"] += 1
        if self._server.reset:
            self._transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            self._transport.abort()
        else:
            self._transport.close()

    def _busy(self) -> None:
        self.idle = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def serve(server: Server, certificate: Path, pipe: Connection) -> None:
    """Serve until something comes down the pipe, and send the counts back."""
    asyncio.run(_serve(server, certificate, pipe))


async def _serve(server: Server, certificate: Path, pipe: Connection) -> None:
    context = None
    if server.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    lines, counts, loop = set[Line](), Counter[str](), asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Line(server, lines, counts), "127.0.0.1", 0, ssl=context, backlog=256)
    pipe.send(listener.sockets[0].getsockname()[1])
    over = asyncio.Event()
    loop.add_reader(pipe.fileno(), over.set)
    while not over.is_set():
        try:
            await asyncio.wait_for(over.wait(), random.uniform(0.5, 3))  # noqa: S311 - no secret
        except TimeoutError:
            if server.how == "restart":
                for line in [line for line in lines if line.idle]:
                    line.hang_up()
    pipe.recv()
    pipe.send(dict(counts))


def life(server: Server, folder: Path, calls: int, *, kept: bool) -> Found:
    """Make the calls of one process's life."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(server, folder / "certificate.pem", theirs), daemon=True
    )
    process.start()
    port = ours.recv()
    client = TikTok(
        app_id=APP_ID,
        app_secret=Token(APP_SECRET),
        redirect_uri="https://localhost/callback/",
        base_url=f"{'https' if server.tls else 'http'}://127.0.0.1:{port}",
        authorize_url="https://localhost/authorize/",
        egress=Egress(None, folder / "authority.pem"),
    )
    if not kept:
        client._transport._kept.distrust()  # noqa: SLF001 - what is measured is what this turns off
    found, lock, began = Found(), threading.Lock(), time.monotonic()

    def call(count: int) -> None:
        ends = Counter[str]()
        for number in range(count):
            if number % BURST == BURST - 1:
                time.sleep(random.uniform(0, LONGEST_PAUSE))  # noqa: S311 - no secret
            try:
                raw = client.send_refresh(Token("rft.old"))
            except NotSentError:
                ends["not_sent"] += 1
            else:
                ends["whole" if raw.complete else "in_doubt"] += 1
        with lock:
            found.calls += count
            found.in_doubt += ends["in_doubt"]
            found.not_sent += ends["not_sent"]

    threads = [threading.Thread(target=call, args=(calls // THREADS,)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.seconds = time.monotonic() - began
    client.close()
    ours.send(None)
    found.connections = ours.recv()["connections"]
    process.join()
    return found


def main() -> int:
    """Measure, print a table, and return 1 if kept connections left more calls in doubt."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--servers", default=",".join(HOW), help=f"which to meet, of {', '.join(HOW)}")
    parser.add_argument("--calls", type=int, default=6_500, help="of a plain server, over kept connections")
    parser.add_argument("--tls-share", type=float, default=0.3, help="how many of them a server inside TLS gets")
    parser.add_argument("--new-share", type=float, default=0.1, help="how many of them are made over new connections")
    parser.add_argument("--lives", type=int, default=LIVES, help="processes that meet each server one after the other")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    chosen = parser.parse_args()
    hows = chosen.servers.split(",")
    if unknown := set(hows) - set(HOW):
        parser.error(f"--servers: {', '.join(sorted(unknown))} is none of {', '.join(HOW)}")
    servers = [Server(how, reset, tls) for how in hows for reset in (False, True) for tls in (False, True)]
    found: dict[Server, dict[bool, Found]] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "authority.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "certificate.pem")
        for server in servers:
            found[server] = {True: Found(), False: Found()}
            for _ in range(chosen.lives):
                calls = chosen.calls / chosen.lives * (chosen.tls_share if server.tls else 1)
                for kept, sum_ in found[server].items():
                    count = int(calls if kept else calls * chosen.new_share)
                    sum_.add(life(server, folder, max(THREADS, count), kept=kept))
            both = found[server]
            console.print(f"{server}: kept {both[True]}, new {both[False]}", style="dim", highlight=False)
    return _report(found, chosen.out)


def _report(found: dict[Server, dict[bool, Found]], out: Path | None) -> int:
    table = Table(
        "the server closes",
        "by",
        "",
        "calls",
        "connections",
        "in doubt",
        "not sent",
        "new: calls",
        "in doubt",
        "not sent",
    )
    for server, (over_kept, over_new) in ((server, each.values()) for server, each in found.items()):
        how = (HOW[server.how], "RST" if server.reset else "FIN", "TLS" if server.tls else "plain")
        figures = (over_kept.calls, over_kept.connections, over_kept.in_doubt, over_kept.not_sent)
        table.add_row(*how, *map(str, (*figures, over_new.calls, over_new.in_doubt, over_new.not_sent)))
    console.print(table)
    whole = {kept: Found() for kept in (True, False)}
    for each in found.values():
        for kept, sum_ in each.items():
            whole[kept].add(sum_)
    for kept, sum_ in whole.items():
        console.print("kept:" if kept else "new:", sum_)
    if out is not None:
        told = [
            asdict(server) | {"kept": asdict(each[True]), "new": asdict(each[False])} for server, each in found.items()
        ]
        out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return int(whole[True].in_doubt * whole[False].calls > whole[False].in_doubt * whole[True].calls)


if __name__ == "__main__":
    sys.exit(main())
