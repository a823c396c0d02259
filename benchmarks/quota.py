"""Full demand against the real limits: what share of the permitted requests is used, and is any refused with 40100.

Run it from the project's root: `python -m benchmarks.quota [--minutes 10] [--restart-redis]`. Worker processes with the
real limiter and the real client refresh and pull as fast as they get permits, against the sandbox that enforces
TikTok's limits; the sandbox's ledger records what arrived and when. `--restart-redis` kills the Redis-protocol server
in the middle and starts an empty one at the same address some seconds later. It exits 1 on a refusal, on an overfull
sliding minute, or if less than 95 % was used although Redis was left alone. The sliding second is printed, and not
judged: on a busy machine requests are held up by more than the room that 95 % leaves.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from worker.errors import TikTokError, WaitError
from worker.limiter import Limiter
from worker.policy import quota
from worker.sandbox.broker import answers, connect, plan_broker
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox, start_sandbox
from worker.tiktok import ACCOUNT_CALL, REFRESH_CALL, TikTok, read_token_answer
from worker.vault import Token

WORKERS: Final = 8
THREADS: Final = 4
"""Of each worker; all but one refresh, the last one pulls."""
CREATORS: Final = 400
LEAST_USED: Final = 0.95
SETTLE_SECONDS: Final = 5.0
"""Left out after the first request: the workers' processes come up one by one."""
AWAY_SECONDS: Final = 5.0
LONGEST_NAP: Final = 10.0


@dataclass(frozen=True)
class Job:
    """The arguments of a worker process."""

    redis_url: str
    base_url: str
    authorize_url: str
    limits: dict[str, int]
    until: float
    tokens: list[dict[str, Any]]


def main() -> int:
    """Run, print the figures, and return 1 if a promise is broken."""
    arguments = _arguments()
    limits = {"per_second": arguments.qps, "per_minute": arguments.qpm, "per_account_minute": 40}
    seconds = arguments.minutes * 60
    with TemporaryDirectory() as folder:
        options = SandboxOptions(
            ledger=f"{folder}/ledger.jsonl",
            ledger_all=True,
            latency=arguments.latency,
            **{f"quota_{name}": limit for name, limit in limits.items()},
        )
        with start_sandbox(options) as sandbox:
            began = time.time()
            away = _drive(sandbox, Path(folder), limits, seconds, restart=arguments.restart_redis)
            entries = [entry for entry in sandbox.entries() if entry.time >= began and "control" not in entry.call]
            quota_refusals = sandbox.stats()["quota"]
    arrivals = [entry.time for entry in entries if entry.code == 0]
    codes = Counter(entry.code for entry in entries)
    permitted = quota.sustained_rate(per_second=arguments.qps, per_minute=arguments.qpm)
    settled = [at for at in arrivals if at >= arrivals[0] + SETTLE_SECONDS]
    used = len(settled) / (permitted * (settled[-1] - arrivals[0] - SETTLE_SECONDS))
    second, minute = most_within(arrivals, 1.0), most_within(arrivals, 60.0)
    rows = (
        ("requests that arrived", f"{len(entries):,}"),
        ("answers by code", ", ".join(f"{code}: {count:,}" for code, count in sorted(codes.items()))),
        ("refused by the quota", str(quota_refusals)),
        ("share of the permitted requests used", f"{used:.2%}"),
        ("most in a sliding second", f"{second} of {arguments.qps}"),
        ("most in a sliding minute", f"{minute} of {arguments.qpm}"),
        ("closest eleventh request (limit + 1)", f"{1000 * closest(arrivals, arguments.qps):.0f} ms"),
        ("Redis away", f"{away:.1f} s" if away else "never"),
    )
    table = Table("figure", "value", title=f"{WORKERS} workers, {arguments.minutes:g} minutes")
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)
    broken = codes[40100] or minute > arguments.qpm
    return int(bool(broken or (used < LEAST_USED and not away)))


def most_within(times: Sequence[float], window: float) -> int:
    """Return the most arrivals in any stretch of `window` seconds."""
    within: deque[float] = deque()
    most = 0
    for at in sorted(times):
        within.append(at)
        while within[0] <= at - window:
            within.popleft()
        most = max(most, len(within))
    return most


def refused_sliding(times: Sequence[float], limit: int, window: float) -> int:
    """Return how many arrivals a server refuses that counts the accepted ones of the last `window` seconds."""
    within: deque[float] = deque()
    refused = 0
    for at in sorted(times):
        while within and within[0] <= at - window:
            within.popleft()
        if len(within) < limit:
            within.append(at)
        else:
            refused += 1
    return refused


def closest(times: Sequence[float], count: int) -> float:
    """Return the shortest time in which one request more than `count` arrived."""
    ordered = sorted(times)
    return min((later - earlier for earlier, later in zip(ordered, ordered[count:], strict=False)), default=0.0)


def _drive(sandbox: RunningSandbox, folder: Path, limits: dict[str, int], seconds: float, *, restart: bool) -> float:
    """Let the workers run; return for how long Redis was away."""
    server = Server(folder)
    tokens = sandbox.grants(CREATORS)
    until, away = time.time() + seconds, 0.0
    jobs = [
        Job(server.url, sandbox.url, sandbox.authorize_url, limits, until, tokens[start::WORKERS])
        for start in range(WORKERS)
    ]
    try:
        with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
            running = pool.map_async(_work, jobs)
            if restart:
                time.sleep(seconds / 2)
                away = server.restart()
            running.get(seconds + 60)
        with connect(server.url) as client:
            assert all(client.pttl(key) > 0 for key in client.scan_iter()), "a key without a time to live"
    finally:
        server.stop()
    return away


class Server:
    """A Redis-protocol server that can be killed and started again, empty, at the same address."""

    def __init__(self, folder: Path) -> None:
        self._plan = plan_broker(folder)
        self.url = self._plan.url
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(self._plan.command, stdout=subprocess.DEVNULL)
        while not answers(self.url):
            time.sleep(0.02)

    def restart(self) -> float:
        """Kill it, wait, and start it again; return for how long it was away, in seconds."""
        began = time.time()
        self.stop()
        time.sleep(AWAY_SECONDS)
        self._start()
        return time.time() - began

    def stop(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()


def _work(job: Job) -> int:
    client = TikTok(
        app_id="sandbox-app",
        app_secret=Token("sandbox-secret"),
        redirect_uri="https://localhost/callback/",
        base_url=job.base_url,
        authorize_url=job.authorize_url,
    )
    limiter = Limiter(
        job.redis_url,
        app_id="sandbox-app",
        per_second=job.limits["per_second"],
        per_minute=job.limits["per_minute"],
        per_account_minute=job.limits["per_account_minute"],
    )
    turns = [_turns(job.tokens[thread::THREADS]) for thread in range(THREADS)]
    threads = [
        threading.Thread(target=_thread, args=(job, client, limiter, turns[number], number == THREADS - 1))
        for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    limiter.close()
    client.close()
    return 0


def _turns(tokens: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    while True:
        yield from tokens


def _thread(job: Job, client: TikTok, limiter: Limiter, turns: Iterator[dict[str, Any]], pulls: bool) -> None:
    for token in turns:
        call = ACCOUNT_CALL if pulls else REFRESH_CALL
        while wait := limiter.take(lane="pull" if pulls else "refresh", call=call, account=token["open_id"]):
            if time.time() + wait > job.until:
                return
            time.sleep(min(wait, LONGEST_NAP))
        while wait := limiter.depart():
            time.sleep(wait)
        try:
            if pulls:
                asked = {"fields": ["display_name", "profile_image"]}
                client.read(Token(token["access_token"]), ACCOUNT_CALL, token["open_id"], asked)
            else:
                answer = read_token_answer(client.send_refresh(Token(token["refresh_token"])))
                token["access_token"] = answer.access_token.reveal()
                token["refresh_token"] = answer.refresh_token.reveal() if answer.refresh_token else ""
        except WaitError as error:
            limiter.punish(error.scope, error.seconds)
        except TikTokError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        if time.time() > job.until:
            return


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long")
    parser.add_argument("--qps", type=int, default=10, help="TikTok's limit a second")
    parser.add_argument("--qpm", type=int, default=600, help="TikTok's limit a minute")
    parser.add_argument("--latency", type=float, default=0.15, help="seconds the sandbox takes to answer")
    parser.add_argument("--restart-redis", action="store_true", help="kill Redis in the middle and start an empty one")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
