"""What a process shows when it breaks: no core dump, no values of variables, and nothing while a debug switch is on."""

from __future__ import annotations

import http.client
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from worker.errors import ConfigurationError
from worker.hardening import REFUSED, refuse_debug_switches
from worker.telemetry.last_words import last_words
from worker.vault.redaction import LINES_LIMIT

PROJECT = Path(__file__).resolve().parents[2]
MEMORY = """
import os, resource
from worker.hardening import keep_memory_private
keep_memory_private()
print(*resource.getrlimit(resource.RLIMIT_CORE))
import ctypes, subprocess, sys
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) if sys.platform == "linux" else 0)
print(subprocess.run(["sh", "-c", "ulimit -c"], capture_output=True, text=True).stdout.strip())
sys.stdout.flush()
os.abort()
"""
CRASH = """
import sys, threading
from worker.telemetry import install_last_words
if sys.argv[1] == "logged":
    from worker.telemetry import configure_logging
    configure_logging(log_format="json", level="INFO")
install_last_words()
def deep(value):
    hidden_value = "CAN" + "ARY in a variable"
    try:
        raise KeyError("refresh_token=" + value)
    except KeyError as error:
        raise RuntimeError("bad \\x1b[31m rft." + value) from error
thread = threading.Thread(target=deep, args=("CAN" + "ARYthread1234",))
thread.start()
thread.join()
class Bad:
    def __del__(self):
        deep("CAN" + "ARYdel12345")
bad = Bad()
del bad
from worker.telemetry.metrics import FACTS
for name in ("thread.crashed", "error.ignored"):
    assert FACTS.labels(fact=name)._value.get() == 1.0, name
deep("CAN" + "ARYmain1234")
"""
STACKS = """
import threading, time
from worker.hardening import dump_stacks_on_signal
dump_stacks_on_signal()
def waiting_here(token):
    print("ready", flush=True)
    time.sleep(60)
waiting_here("CANARY")
"""


def python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script to its end."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_no_core_dump_is_written() -> None:
    """The limit is zero here and in children, and on Linux the process is marked as one that is never dumped."""
    ended = python(MEMORY)

    assert ended.returncode == -signal.SIGABRT
    assert ended.stdout.split() == ["0", "0", "0", "0"]


@pytest.mark.parametrize("where", ["logged", "bare"])
def test_uncaught_exceptions_are_logged_without_values(where: str) -> None:
    """In the main thread, another one and a destructor: kind and place are logged, tokens and variables are not."""
    ended = python(CRASH, where)

    assert ended.returncode == 1
    assert "CANARY" not in ended.stderr
    assert "\x1b" not in ended.stderr
    for name in ("thread.crashed", "error.ignored", "process.crashed"):
        assert ended.stderr.count(name) >= 1
    assert "in deep" in ended.stderr
    assert "RuntimeError: bad" in ended.stderr


def test_hooks_that_somebody_set_stay() -> None:
    """An error reporter that the operator chose goes on getting what it asked for."""
    script = "import sys; from worker.telemetry import install_last_words; mine = sys.excepthook = lambda *_: None;"

    assert python(f"{script} install_last_words(); sys.exit(sys.excepthook is not mine)").returncode == 0


def test_last_words_are_bounded() -> None:
    """A text of megabytes in an exception does not fill the log."""
    assert len(last_words(ValueError("x" * 1_000_000))) <= LINES_LIMIT


def test_a_signal_shows_stacks_and_no_values() -> None:
    """SIGUSR1 shows where a process hangs; Celery's own answer would print every local variable."""
    with subprocess.Popen(
        [sys.executable, "-c", STACKS], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGUSR1)
        written = [process.stderr.readline() for _ in range(3)]
        assert process.poll() is None
        process.kill()

    assert "waiting_here" in "".join(written)
    assert "CANARY" not in "".join(written)


@pytest.mark.parametrize("name", REFUSED)
def test_debug_switches_are_refused(name: str) -> None:
    """Each variable is named with what it does; empty ones are none."""
    refuse_debug_switches({name: "", "PATH": os.environ["PATH"]})

    with pytest.raises(ConfigurationError, match=f"{name} is set, which {REFUSED[name]}"):
        refuse_debug_switches({name: "1"})


def test_debug_switches_of_the_process_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What code has switched on counts as much as the environment, and all of it is named at once."""
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    logger = logging.getLogger("sqlalchemy.engine")
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        with pytest.raises(ConfigurationError, match=r"prints every request.*echoes every statement"):
            refuse_debug_switches({})
    finally:
        logger.setLevel(before)


def test_interpreter_flags_are_refused() -> None:
    """`-X dev` and `-i` are switches as well."""
    script = "from worker.hardening import refuse_debug_switches; refuse_debug_switches({})"
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-i", "-c", script],
        cwd=PROJECT, capture_output=True, text=True, input="exit(3)\n", timeout=60, check=False,
    )  # fmt: skip

    assert "Python runs with -X dev" in ended.stderr
    assert "Python runs with -i" in ended.stderr


def test_a_dump_takes_no_time() -> None:
    """Making the last words of a long text costs milliseconds, since a process that dies has no time."""
    began = time.monotonic()
    last_words(ValueError("act." + "a" * 5_000_000))

    assert time.monotonic() - began < 2
