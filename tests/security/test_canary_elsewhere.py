"""The whole stack with traces and errors on: both arrive whole and once, without a secret, and delay no end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.security.canary import Canary, Scan
from tests.security.canary_run import STRIKE_SECONDS, Rehearsal
from tests.support.desk import desk_settings
from tests.support.elsewhere import KEY, Elsewhere
from worker.sandbox.children import Child
from worker.telemetry.otel import FLUSH_SECONDS

pytestmark = [
    pytest.mark.slow_suite,
    pytest.mark.timeout(600),
    pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True),
]


class Sending(Rehearsal):
    """A stack of worker, forking worker, beat, Flower, desk and exporter that sends elsewhere."""

    def start_all(self, elsewhere: Elsewhere) -> None:
        """Start every process that the pages name."""
        settings = desk_settings(self._ports(), EXPORTER_PORT=str(self._ports()))
        self.daemon.environ |= elsewhere.environ | {f"EVERTOKEN_{name}": value for name, value in settings.items()}
        self.start()
        self.forking = self.daemon.worker("forking", "--pool", "prefork", queues="pull,default")
        self.desk, self.exporter = self.daemon._start("desk", "desk"), self.daemon.exporter("--every", "1")
        self.daemon.wait_ready(self.wait_until, self.forking)
        for child, fact in ((self.desk, b"desk.started"), (self.exporter, b"exporter.started")):
            self.wait_until(lambda child=child, fact=fact: fact in child.log.read_bytes(), 60)

    def end_all(self) -> None:
        """End everything in good order."""
        self.end()
        self.daemon.stop(self.forking, self.desk, self.exporter)

    def senders(self) -> tuple[Child, ...]:
        """Return the processes that send and run now."""
        return self.refresher, self.puller, self.forking, self.beat, self.desk, self.exporter


@pytest.fixture
def stack(
    store_url: str,
    new_redis: Callable[..., Any],
    free_ports: Callable[[], int],
    wait_until: Callable[..., None],
    tmp_path: Path,
) -> Iterator[Sending]:
    """A stack that has not begun, over a Redis that writes down all commands."""
    server = new_redis("--appendonly", "yes", "--rdbcompression", "no")
    with Sending(
        tmp_path, store_url=store_url, redis_server=server, free_ports=free_ports, wait_until=wait_until
    ) as made:
        yield made


def test_traces_and_errors_of_the_whole_stack_are_whole_and_hold_no_secret(stack: Sending) -> None:
    """Refreshes, pulls, refusals that repeat secrets, crashes, a refused app and an end: what was sent is scanned."""
    with Elsewhere() as elsewhere:
        stack.start_all(elsewhere)
        stack.import_creators([f"healthy-{number}" for number in range(6)])
        stack.sandbox.fault("code", call="refresh", times=4, code=99999, message=f"no {stack.secrets.spoken}")
        stack.crash()
        stack.refuse_the_app()
        stack.wait_until(lambda: "app.stopped" in elsewhere.messages(), STRIKE_SECONDS)
        stack.end_all()
        scan = Scan([*stack.secrets.canaries(), Canary("the key of Sentry and of the collector", KEY.encode())])
        scan.look("what was sent elsewhere", elsewhere.bodies())
        for place in stack.places():
            scan.look(*place)

    assert [str(finding) for finding in scan.findings] == []
    spans = elsewhere.spans()
    names = {span.name for _, span in spans}
    assert {"refresh.group", "tiktok.call", "database.commit", "pull", "tasks.upkeep.keep_house"} <= names
    ids = Counter((span.trace_id, span.span_id) for _, span in spans)
    assert max(ids.values()) == 1
    # A killed worker loses the spans that it was in.
    parents = Counter((span.trace_id, span.parent_span_id) in ids for _, span in spans if span.parent_span_id)
    assert parents[True] > 20 * parents[False]
    scans = {span.trace_id for _, span in spans if span.name == "scan.refreshes"}
    assert scans & {span.trace_id for _, span in spans if span.name == "refresh.group"}, "two processes, one trace"
    log = b"".join(path.read_bytes() for path in (stack.home / "logs").glob("*.log"))
    messages = elsewhere.messages()
    assert messages["task.crashed"] == log.count(b'"event": "task.crashed"') > 0
    assert messages["app.stopped"] == log.count(b'"event": "app.stopped"') == 1
    assert log.count(b"traces.unsent") == log.count(b"errors.unsent") == 0
    assert [child.status for child in stack.senders()] == [0] * 6


def test_a_collector_and_a_sentry_that_hang_delay_no_end(stack: Sending) -> None:
    """Every process works while nothing answers, ends with 0 in its time, and logs each kind of loss once at most."""
    with Elsewhere() as elsewhere:
        elsewhere.open.clear()
        stack.start_all(elsewhere)
        stack.import_creators([f"healthy-{number}" for number in range(6)])
        stack.wait_until(lambda: b'"refresh.saved"' in stack.refresher.log.read_bytes(), STRIKE_SECONDS)
        stack.refuse_the_app()
        for child in stack.senders():
            began = time.monotonic()
            stack.daemon.stop(child)
            assert time.monotonic() - began < 2 * FLUSH_SECONDS + 20, child.name
        stack.daemon.stop(stack.flower)

    assert [child.status for child in stack.senders()] == [0] * 6
    for child in stack.senders():
        log = child.log.read_text()
        assert "Traceback" not in log, child.name
        assert log.count("traces.unsent") <= 1
        assert log.count("errors.unsent") <= 1
        assert KEY not in log
