"""The bare loop: what `requests` alone does over kept connections, with nothing stored, sealed, limited or logged.

Threads post refreshes through a `Session` each and read the JSON of the answers. It prints one JSON line: seconds of
wall time and of processor time.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from typing import Any

import requests

from benchmarks.standin import APP_ID, APP_SECRET, pair_of


def refresh_all(url: str, prefix: str, count: int, start: threading.Barrier) -> None:
    """Refresh creators of a prefix nobody else uses, each with the token that the last answer brought."""
    session = requests.Session()
    token: Any = pair_of(prefix, 1)["refresh_token"]
    start.wait()
    for _ in range(count):
        body = {
            "client_id": APP_ID,
            "client_secret": APP_SECRET,
            "grant_type": "refresh_token",
            "refresh_token": token,
        }
        answer = session.post(url, json=body, timeout=30).json()
        assert answer["code"] == 0, answer
        token = answer["data"]["refresh_token"]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    chosen = parser.parse_args()
    start = threading.Barrier(chosen.threads + 1)
    each = max(1, chosen.count // chosen.threads)
    threads = [
        threading.Thread(target=refresh_all, args=(chosen.url, f"{chosen.prefix}-{number}", each, start), daemon=True)
        for number in range(chosen.threads)
    ]
    for thread in threads:
        thread.start()
    start.wait()
    wall, processor = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.join()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    sys.stdout.write(json.dumps({"count": each * chosen.threads, "wall": wall, "processor": processor}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
