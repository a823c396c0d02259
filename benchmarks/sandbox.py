"""How many refreshes a second the sandbox answers per second of its own processor time, ledger on.

Child processes keep a few connections busy with pipelined requests over raw sockets; the sandbox's processor time
comes from its own counters, so that a machine shared with other work does not change the figure much.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import start_sandbox

PIPELINED = 32
WANTED_PER_SECOND = 3_000


def request_for(refresh_token: str) -> bytes:
    """Build one refresh request as a client with its usual headers would send it."""
    body = json.dumps(
        {
            "client_id": "sandbox-app",
            "client_secret": "sandbox-secret",
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
        }
    )
    head = (
        "POST /open_api/v1.3/tt_user/oauth2/refresh_token/ HTTP/1.1",
        "Host: 127.0.0.1",
        "User-Agent: benchmark",
        "Accept: */*",
        "Connection: keep-alive",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


def send_all(port: int, tokens: list[str], refreshes: int) -> None:
    """Refresh every creator in turn, always with the newest token; every answer must bring a pair."""
    with socket.create_connection(("127.0.0.1", port)) as line:
        reader = line.makefile("rb")
        done = 0
        while done < refreshes:
            batch = tokens[: min(PIPELINED, refreshes - done)]
            del tokens[: len(batch)]
            line.sendall(b"".join(request_for(token) for token in batch))
            tokens += [next_token(reader) for _ in batch]
            done += len(batch)


def next_token(reader: Any) -> str:
    """Read one answer and give its new refresh token."""
    length = 0
    while (header := reader.readline()) != b"\r\n":
        if header.lower().startswith(b"content-length:"):
            length = int(header.split(b":")[1])
    answer = json.loads(reader.read(length))
    assert answer["code"] == 0, answer["message"]
    return str(answer["data"]["refresh_token"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--refreshes", type=int, default=30_000)
    parser.add_argument("--creators", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=4)
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        options = SandboxOptions(ledger=str(Path(folder, "ledger.jsonl")))
        with start_sandbox(options) as sandbox:
            began = time.perf_counter()
            tokens = [grant["refresh_token"] for grant in sandbox.grants(asked.creators)]
            created = time.perf_counter() - began
            each = asked.refreshes // asked.connections
            shares = [tokens[number :: asked.connections] for number in range(asked.connections)]
            before, began = sandbox.stats(), time.perf_counter()
            senders = [multiprocessing.Process(target=send_all, args=(sandbox.port, share, each)) for share in shares]
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join()
                assert sender.exitcode == 0
            wall, after = time.perf_counter() - began, sandbox.stats()
            pairs, cpu = after["pairs"] - before["pairs"], after["cpu_seconds"] - before["cpu_seconds"]
            assert len(sandbox.entries()) == after["ledger_lines"] == asked.creators + pairs
    print(f"{asked.creators} creators made in {created:.2f} s")
    print(f"{pairs} refreshes in {wall:.2f} s of wall time, {cpu:.2f} s of the sandbox's processor time")
    print(f"{pairs / cpu:.0f} refreshes per processor second (at least {WANTED_PER_SECOND} wanted)")


if __name__ == "__main__":
    main()
