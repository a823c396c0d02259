"""Run a sandbox as a child process and control it; tests and the demo use this."""

from __future__ import annotations

import http.client
import json
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from worker.sandbox.ledger import LedgerEntry, read_ledger
from worker.sandbox.options import SandboxOptions

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
CONTROL_SECONDS: Final = 120.0
HTTP_OK: Final = 200


class SandboxError(RuntimeError):
    """The sandbox did not start or refused a control request; the text is one sentence for a person."""


class RunningSandbox:
    """A sandbox that runs as a child process; use it as a context manager or call `stop`.

    Attributes:
        options: the options it was started with.
        url: base of the open API, to be given to clients as their base URL.
        authorize_url: the authorization page.
        origin: scheme, host and port.
        port: where it listens.
        pid: its process.
        ledger_path: its ledger; in a temporary folder unless the options name a file.
    """

    def __init__(self, options: SandboxOptions) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if options.ledger is None:
            self._folder = tempfile.TemporaryDirectory(prefix="sandbox-")
            options = replace(options, ledger=str(Path(self._folder.name, "ledger.jsonl")))
        self.options = options
        self.ledger_path = Path(str(options.ledger))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "worker.sandbox"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is meant for the process that started us
        )
        self.pid = self._process.pid
        try:
            said = self._begin()
        except BaseException:
            self.stop()
            raise
        self.port: int = said["port"]
        self.url: str = said["url"]
        self.authorize_url: str = said["authorize_url"]
        self.origin = self.url.removesuffix("/open_api")

    def _begin(self) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:  # pragma: no cover  # both are pipes, as asked above
            raise SandboxError("the sandbox has no pipes")
        stdin.write(json.dumps(self.options.to_json()).encode() + b"\n")
        stdin.flush()
        ready, _, _ = select.select([stdout], [], [], START_SECONDS)
        line = stdout.readline() if ready else b""
        if not line:
            raise SandboxError("the sandbox did not start; its message is on standard error")
        said: dict[str, Any] = json.loads(line)
        return said

    def control(self, path: str, body: Any = None, *, method: str | None = None) -> dict[str, Any]:
        """Send a control request: GET without a body and POST with one, unless `method` says otherwise.

        Raises:
            SandboxError: it was refused.
            OSError: the sandbox is not there.
        """
        connection = http.client.HTTPConnection(self.options.host, self.port, timeout=CONTROL_SECONDS)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method or ("GET" if body is None else "POST"), f"/_sandbox/{path}", text)
            answer = connection.getresponse()
            said: dict[str, Any] = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != HTTP_OK:
            raise SandboxError(str(said.get("error", "refused")))
        return said

    def fault(
        self,
        kind: str,
        *,
        creator: str | None = None,
        call: str | None = None,
        times: int | None = None,
        probability: float = 1.0,
        **how: Any,
    ) -> int:
        """Switch a fault on and return its number.

        Args:
            kind: such as `lost`, `cut` or `status`.
            creator: whom it strikes; None for all.
            call: a short name of `faults.CALLS`, such as `refresh` or `account`; None for all.
            times: how many calls it strikes; None for all.
            probability: how likely it strikes each call.
            **how: the kind's own settings.
        """
        when = {"creator": creator, "call": call, "times": times, "probability": probability}
        return int(self.control("faults", {"kind": kind, **when, **how})["ids"][0])

    def heal(self) -> None:
        """Switch all faults off."""
        self.control("faults", method="DELETE")

    def grants(self, count: int = 1, **how: Any) -> list[dict[str, Any]]:
        """Create creators who have consented, and return their token objects."""
        created: list[dict[str, Any]] = self.control("grants", {"count": count, **how})["grants"]
        return created

    def consent_url(self, creator: str | None = None, scope: str | None = None, state: str | None = None) -> str:
        """Let a creator consent, and return the address where the browser lands, code included."""
        body = {"creator": creator, "scope": scope, "state": state}
        return str(self.control("codes", body)["redirect_url"])

    def creator(self, creator: str) -> dict[str, Any]:
        """Return what the sandbox knows of a creator, with fingerprints instead of tokens."""
        return self.control("creator", {"creator": creator})

    def set_account(self, creator: str | None = None, **traits: Any) -> Mapping[str, Any]:
        """Set traits of one account, or of all that have none of their own, and return them."""
        found: dict[str, Any] = self.control("account", {"creator": creator, **traits})["traits"]
        return found

    def truth(self, table: str, creator: str, **asked: Any) -> list[dict[str, Any]]:
        """Return rows that a complete database must hold of an account.

        Args:
            table: a name of `accounts.truth.TABLES`.
            creator: the account's id.
            **asked: `since`, `now` and `seen`, with ISO texts.
        """
        found: list[dict[str, Any]] = self.control("truth", {"creator": creator, "table": table, **asked})["rows"]
        return found

    def advance(self, *, days: float = 0.0, seconds: float = 0.0) -> float:
        """Move the sandbox's clock forward and return its time, in seconds since 1970."""
        return float(self.control("clock", {"advance": days * 86_400 + seconds})["now"])

    def revoke(self, creator: str) -> None:
        """Make a creator remove our app."""
        self.control("revoke", {"creator": creator})

    def change(self, **options: Any) -> Mapping[str, Any]:
        """Change run-time options, and return all options."""
        changed: dict[str, Any] = self.control("options", options)["options"]
        return changed

    def stats(self) -> dict[str, Any]:
        """Return the counters."""
        return self.control("stats")

    def entries(self) -> list[LedgerEntry]:
        """Read the ledger as it is now."""
        return read_ledger(self.ledger_path)

    def stop(self) -> None:
        """End the process and wait for it; a second call does nothing. A temporary ledger is removed."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_sandbox(options: SandboxOptions | None = None) -> RunningSandbox:
    """Start a sandbox in a child process and wait until it listens.

    Args:
        options: how it behaves; by default with a free port and a temporary ledger.

    Raises:
        SandboxError: it did not start, such as because the port is taken.
    """
    return RunningSandbox(options or SandboxOptions())
