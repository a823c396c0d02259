"""A stand-in for TikTok that is faster than what it measures: one thread, kept connections, strict rotation.

It answers refreshes on two loopback ports, one of them with TLS, and counts what it saw. A creator it has not seen yet
holds the pair of generation 1; every refresh token but the newest is refused, as strict rotation wants it. It writes
its ports to a file and serves until it is killed. `GET /control` answers the counts; `GET /control?latency=0.2` sets
how long it waits before it answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PAD: Final = "0123456789abcdef" * 3
LIFE_SECONDS: Final = 86_400
REFRESH_LIFE_SECONDS: Final = 31_536_000
SCOPE: Final = "user.info.basic,user.info.stats"
DEAD: Final = 40107
APP_ID: Final = "bench-app"
APP_SECRET: Final = "bench-secret"  # noqa: S105 - no secret: the stand-in's own app


def pair_of(creator: str, generation: int) -> dict[str, str | int]:
    """Return a creator's pair of this generation, with TikTok's field names."""
    return {
        "access_token": f"act.{creator}.{generation}.{PAD}",
        "expires_in": LIFE_SECONDS,
        "refresh_token": f"rft.{creator}.{generation}.{PAD}",
        "refresh_token_expires_in": REFRESH_LIFE_SECONDS,
        "open_id": creator,
        "scope": SCOPE,
        "token_type": "Bearer",
    }


@dataclass
class State:
    """What the stand-in knows.

    Attributes:
        generations: the newest generation of each creator that was seen.
        latency: seconds before an answer leaves.
    """

    generations: dict[str, int] = field(default_factory=dict)
    refreshes: int = 0
    refused: int = 0
    other: int = 0
    connections: int = 0
    latency: float = 0.0

    def refresh(self, body: bytes) -> tuple[int, str, dict[str, str | int] | None]:
        """Return code, message and data for a refresh."""
        _, creator, said, _ = json.loads(body)["refresh_token"].split(".")
        generation = int(said)
        if self.generations.get(creator, 1) != generation:
            self.refused += 1
            return DEAD, "The refresh token is invalid.", None
        self.refreshes += 1
        self.generations[creator] = generation + 1
        return 0, "OK", pair_of(creator, generation + 1)

    def control(self, path: str) -> dict[str, float]:
        """Return the counts, and set what the path asks for."""
        _, _, wanted = path.partition("latency=")
        if wanted:
            self.latency = float(wanted)
        return {name: getattr(self, name) for name in ("refreshes", "refused", "other", "connections")}


class Line(asyncio.Protocol):
    """One connection."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._state.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop counting the connection."""
        del exc
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Answer each request that has arrived in full."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end])
            low = head.lower()
            _, _, length = low.partition(b"content-length:")
            whole = end + 4 + int(length.split(b"\r\n", 1)[0] or 0)
            if len(self._buffer) < whole:
                return
            body = bytes(self._buffer[end + 4 : whole])
            del self._buffer[:whole]
            self._answer(head.split(b" ", 2)[1].decode(), body, close=b"connection: close" in low)

    def _answer(self, path: str, body: bytes, *, close: bool) -> None:
        state = self._state
        if "/control" in path:
            self._send(json.dumps(state.control(path)).encode(), close)
            return
        if path.endswith("/refresh_token/"):
            code, message, data = state.refresh(body)
        else:
            state.other += 1
            code, message, data = 40002, "The stand-in of the benchmark knows refreshes alone.", None
        number = state.refreshes + state.refused + state.other
        envelope = {"code": code, "message": message, "request_id": f"20261126{number:024X}", "data": data or {}}
        answer = json.dumps(envelope).encode()
        if state.latency:
            asyncio.get_running_loop().call_later(state.latency, self._send, answer, close)
        else:
            self._send(answer, close)

    def _send(self, body: bytes, close: bool) -> None:
        if self._transport is None:
            return
        ending = b"Connection: close\r\n" if close else b""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
        self._transport.write(head % (len(body), ending) + body)
        if close:
            self._transport.close()


async def _serve(ports: Path, certificate: Path) -> None:
    state = State()
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    plain = await loop.create_server(lambda: Line(state), "127.0.0.1", 0, backlog=256)
    secure = await loop.create_server(lambda: Line(state), "127.0.0.1", 0, ssl=context, backlog=256)
    told = {"plain": plain.sockets[0].getsockname()[1], "tls": secure.sockets[0].getsockname()[1]}
    ready = ports.with_suffix(".new")
    ready.write_text(json.dumps(told), encoding="utf-8")
    ready.rename(ports)
    async with plain, secure:
        await asyncio.Event().wait()


def main() -> int:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--ports", type=Path, required=True, help="file for the two ports, as JSON")
    parser.add_argument("--certificate", type=Path, required=True, help="PEM file with certificate and key")
    chosen = parser.parse_args()
    asyncio.run(_serve(chosen.ports, chosen.certificate))
    return 0


if __name__ == "__main__":
    sys.exit(main())
