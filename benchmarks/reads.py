"""Reads of tokens a second: over the library and over HTTP, beside what two web frameworks give without any work.

    python -m benchmarks.reads [--database URL] [--reads 4000]

A figure of a server is what it answers in a second of its own processor time, since the clients of this script use the
other core. Flask and waitress are measured if they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

from worker.policy.scope import ConsumerScope
from worker.services import build_services
from worker.settings import load_settings
from worker.store import NewConsent
from worker.tokens import token_reader
from worker.tokens.consumers import add_consumer
from worker.vault import Keyring, PairPlace, SealedPair, Token

CLIENTS: Final = 16
LONGEST_SECONDS: Final = 8.0
"""Length of one measurement on a machine that has other work."""
START_SECONDS: Final = 30.0
BODY: Final = '{"creator_id": "ada", "access_token": "' + "x" * 60 + '", "expires_in": 86000, "generation": 3}'
BARE: Final = {
    "flask": f"""
import sys, waitress
from flask import Flask, Response
app = Flask("bare")
app.add_url_rule("/<path:p>", view_func=lambda p: Response({BODY!r}, mimetype="application/json"))
waitress.serve(app, host="127.0.0.1", port=int(sys.argv[1]), threads=44, _quiet=True)
""",
    "starlette": f"""
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
def answer(request): return Response({BODY!r}, media_type="application/json")
app = Starlette(routes=[Route("/{{p:path}}", answer)])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
""",
}


def main() -> None:
    """Measure and print."""
    asked = argparse.ArgumentParser(description="Reads of tokens a second.")
    asked.add_argument("--database", help="address of an empty database; a file of SQLite by default")
    asked.add_argument("--reads", type=int, default=3000)
    given = asked.parse_args()
    for name, script in BARE.items():
        if name == "flask" and not (importlib.util.find_spec("flask") and importlib.util.find_spec("waitress")):
            print("flask with waitress   not installed")
            continue
        port = free_port()
        with server([sys.executable, "-c", script, str(port)], port) as pid:
            tell(f"{name} alone", *measured(port, pid, "/token", "", given.reads))
    with tempfile.TemporaryDirectory() as folder:
        measure_ours(given.database or f"sqlite:///{folder}/reads.db", Path(folder), given.reads)


def measure_ours(database: str, folder: Path, reads: int) -> None:
    """Measure the library and the desk over one database."""
    port = free_port()
    names = {
        "TIKTOK_APP_ID": "app", "TIKTOK_APP_SECRET": "secret", "TIKTOK_REDIRECT_URI": "https://localhost/callback/",
        "TIKTOK_BASE_URL": "http://127.0.0.1:9/", "REDIS_URL": "redis://127.0.0.1:9/0", "DATABASE_URL": database,
        "JOURNAL_DIR": str(folder / "journal"), "RUN_DIR": str(folder / "run"), "KEYRING": Keyring.new().to_json(),
        "DESK_PORT": str(port), "DESK_SECRET": "s" * 32, "DESK_PASSWORD": "p" * 12, "LOG_LEVEL": "ERROR",
    }  # fmt: skip
    environ = {f"EVERTOKEN_{name}": value for name, value in names.items()}
    with closing(build_services(load_settings(environ, dotenv=None))) as services:
        services.store.upgrade()
        now = services.store.ping()
        consent = NewConsent(
            creator_id="ada", scope="user.info.basic", issued_at=now, access_expires_at=now + timedelta(days=1),
            refresh_expires_at=None, next_refresh_at=now + timedelta(hours=16), jitter=0.5,
        )  # fmt: skip

        def seal(_: NewConsent, number: int, generation: int) -> SealedPair:
            place = PairPlace("ada", number, generation)
            return services.sealer.seal_pair(Token("act." + "a" * 60), Token("rft." + "r" * 60), place)

        services.store.save_consents([consent], seal, replace=False)
        _, key = add_consumer(services.store, "shop", ConsumerScope(everyone=True))
        reader = token_reader(services)
        tell("library", *repeated(lambda: reader.serve("ada", min_validity=60), reads))
        command = [sys.executable, "-m", "worker.cli.console", "desk"]
        with server(command, port, os.environ | environ, folder) as pid:
            path = "/v1/creators/ada/token?min_validity=60"
            tell("desk", *measured(port, pid, path, f"Authorization: Bearer {key.reveal()}\r\n", reads))
            tag = 'If-None-Match: "1.1"\r\n'
            tell("desk, unchanged", *measured(port, pid, path, f"{tag}Authorization: Bearer {key.reveal()}\r\n", reads))


def tell(name: str, by_processor: float, by_clock: float, p99: float) -> None:
    """Print one line."""
    print(f"{name:<22}{by_processor:>7.0f} a second of processor time, {by_clock:>6.0f} by the clock, p99 {p99:.1f} ms")


def repeated(step: Callable[[], object], reads: int) -> tuple[float, float, float]:
    """Return the figures of a function that this process runs."""
    for _ in range(100):
        step()
    times, began, processor = [], time.perf_counter(), time.process_time()
    for _ in range(reads):
        at = time.perf_counter()
        step()
        times.append(time.perf_counter() - at)
    return reads / (time.process_time() - processor), reads / (time.perf_counter() - began), late(times)


def measured(port: int, pid: int, path: str, headers: str, reads: int) -> tuple[float, float, float]:
    """Return the figures of a server, after a quarter of the reads to warm it."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n".encode()
    load(port, request, reads // 4)
    processor, began = seconds_of(pid), time.perf_counter()
    times = load(port, request, reads)
    return len(times) / (seconds_of(pid) - processor), len(times) / (time.perf_counter() - began), late(times)


def load(port: int, request: bytes, reads: int) -> list[float]:
    """Send requests over kept connections of several threads; return how long each took."""
    times, end = list[float](), time.perf_counter() + LONGEST_SECONDS

    def send() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rb") as answers:
            for _ in range(reads // CLIENTS):
                at = time.perf_counter()
                connection.sendall(request)
                # Waitress sends head and body apart, and the kernel would wait 40 ms before it acknowledges the head.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                status, length = answers.readline().split()[1], 0
                while (line := answers.readline().strip().lower()) != b"":
                    length = int(line.partition(b":")[2]) if line.startswith(b"content-length:") else length
                answers.read(length)
                assert status in {b"200", b"304"}, status
                times.append(time.perf_counter() - at)
                if at > end:
                    return

    threads = [threading.Thread(target=send) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def late(times: list[float]) -> float:
    """Return the time that one in a hundred exceeds, in milliseconds."""
    return sorted(times)[int(len(times) * 0.99)] * 1000


def seconds_of(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(
    command: list[str], port: int, environ: dict[str, str] | None = None, folder: Path | None = None
) -> Iterator[int]:
    """Run a server until the end of the block; give its process id once it listens."""
    process = subprocess.Popen(command, env=environ, cwd=folder)
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < end, "the server does not listen"
                time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(START_SECONDS)


if __name__ == "__main__":
    main()
