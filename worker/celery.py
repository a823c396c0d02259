"""The Celery app, the one global of the daemon: `celery -A worker` finds it here.

A worker starts only if it could keep what TikTok gives it: it checks settings, database, keyring and journal first.
"""

from __future__ import annotations

import gc
import sys

collects = gc.isenabled()
gc.disable()  # all that is imported below stays; searching it for garbage again and again is a fifth of a start
UNUSED = "opentelemetry"  # redis would import it if it is installed, which is a seventh of a start
if hidden := UNUSED not in sys.modules:
    sys.modules[UNUSED] = None  # type: ignore[assignment]  # an import of it fails, which redis expects

import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from celery import Celery, Task, signals
from celery.exceptions import CeleryError
from celery.loaders.app import AppLoader
from celery.utils.nodenames import node_format
from kombu.exceptions import OperationalError

from worker import celeryconfig
from worker.broker import QUEUES
from worker.errors import ConfigurationError, EvertokenError, StoreRefusedError, StoreUnavailableError
from worker.hardening import keep_memory_private, refuse_debug_switches
from worker.heap import share_one_heap
from worker.mistakes import POOL_REFUSED, explain_uncaught, mistake_of_flower, mistake_of_options, split_command
from worker.services import build_services, shared_services
from worker.settings import load_settings
from worker.sources import is_service_link
from worker.telemetry import (
    SPANS,
    Fact,
    Span,
    begin_remote,
    configure_logging,
    count_fact,
    end_remote,
    install_last_words,
    log_fact,
    report,
)
from worker.upkeep.arrival import arrive
from worker.vault.redaction import redact
from worker.watchdog import touch, watchdog

if hidden:
    del sys.modules[UNUSED]
if collects:
    gc.freeze()  # nor is it searched later, which stops all threads for a tenth of a second
    gc.enable()

WRONG_USE: Final = 2
NOT_READY: Final = 1
POOLS: Final = {"thread": "threads", "solo": "solo", "prefork": "prefork"}
"""Modules of the pools that are offered; gevent and eventlet patch what the database drivers stand on."""
TOUCH_SECONDS: Final = 1.0
TRACE: Final = "traceparent"
"""Header that leads from a message's task to the span that published it, if traces are on."""
STOCK_COMMANDS: Final = frozenset({"flower", "inspect", "control", "call", "events", "purge", "shell", "multi"})
"""Celery's own commands that would go to Celery's default broker if our settings cannot be read."""
LOGLEVEL: Final = re.compile(r"--loglevel\b|-l[A-Za-z]")


class TaskCrashError(EvertokenError):
    """A task ended in an exception that nobody foresaw; Flower and events get its kind, and the log its traceback."""


class EvertokenTask(Task):  # type: ignore[misc]  # celery ships no types
    """A task whose expected failures are one line in the log: the next scan finds its rows again.

    Celery logs expected failures at INFO, which is not shown, so they are reported here. Unexpected failures are
    reported here too, redacted, since the text of a foreign exception may hold anything.
    """

    throws = (EvertokenError,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Note beat's tick, run the task, and report its failure."""
        headers = self.request.headers or {}
        if headers.get(celeryconfig.FROM_BEAT):
            with suppress(EvertokenError):  # if it matters, the task fails with the same error
                shared_services().store.note_tick()
        try:
            with SPANS.over(Span(self.name, parent=headers.get(TRACE))):
                result = self.run(*args, **kwargs)
        except EvertokenError as error:
            report_failure(self.name, error)
            raise
        except CeleryError:
            raise
        except Exception as error:
            count_fact(Fact("task.crashed"))
            logging.getLogger("evertoken").exception("task.crashed")
            crash = TaskCrashError(f"{self.name} ended in {type(error).__name__}; the worker's log has its traceback")
        else:
            _failing.pop(self.name, None)
            return result
        raise crash


def report_failure(task: str, error: EvertokenError) -> None:
    """Log and count an expected failure of a task; repetitions are only counted until the task succeeds.

    An outage of the database is left out: the store reports it, once for all tasks.
    """
    if isinstance(error, StoreUnavailableError) and not isinstance(error, StoreRefusedError):
        return
    fact = Fact("task.failed", {"task": task, "reason": str(error)}, level="warning")
    count_fact(fact)
    if _failing.get(task) != str(error):
        log_fact(fact)
    _failing[task] = str(error)


_failing: Final[dict[str, str]] = {}  # tasks whose last run failed, with the reason that was logged
_unpublished: Final[Counter[str]] = Counter()  # messages that the broker has not taken since it last took one, by task
HOME: Final = str(Path(__file__).resolve().parents[1])
"""The folder that this package was imported from; `tasks` lies beside it."""


class OwnLoader(AppLoader):  # type: ignore[misc]  # celery ships no types
    """Imports `tasks` from beside this package; Celery's loader prefers the folder that the process was started in."""

    def import_from_cwd(self, module: str, imp: Any = None, package: str | None = None) -> Any:
        """Import a module of ours, or one that is installed."""
        del imp
        sys.path.insert(0, HOME)
        try:
            return import_module(module, package=package)
        finally:
            sys.path.remove(HOME)


app = Celery("evertoken", task_cls=EvertokenTask, loader=OwnLoader)
app.config_from_object(celeryconfig)


def refuse(problem: EvertokenError | str) -> None:
    """End this process with one line on standard error; status 2 for wrong settings, 1 if what it needs is not ready.

    Raises:
        SystemExit: always.
    """
    wrong_use = isinstance(problem, ConfigurationError | str)
    print(f"evertoken: {problem}", file=sys.stderr)  # noqa: T201 - before logging is set up, and for a person
    sys.exit(WRONG_USE if wrong_use else NOT_READY)


def pass_over_service_links() -> None:
    """Remove what Kubernetes sets for a service named flower: Flower would read FLOWER_PORT=tcp://... as its port."""
    for name, value in list(os.environ.items()):
        if name.startswith("FLOWER_") and is_service_link(name, value):
            del os.environ[name]


command, words_after = split_command(sys.argv[1:])
if command == "flower":
    pass_over_service_links()
    os.environ["FLOWER_CONF"] = os.environ.get("FLOWER_CONF") or str(Path(HOME, "worker", "flowerconfig.py"))


def refuse_unknown_task(sender: str | None = None, **_: Any) -> None:
    """Refuse to publish a task that no worker knows: workers would drop it, and its sender would not notice."""
    app.loader.import_default_modules()
    if sender not in app.tasks:
        ours = sorted(name for name in app.tasks if name.startswith("tasks."))
        refuse(f"there is no task {redact(str(sender))}; there are {', '.join(ours)}")


if "celery.bin.celery" in sys.modules and sys.excepthook is sys.__excepthook__:
    sys.excepthook = explain_uncaught
    if command == "call":
        signals.before_task_publish.connect(refuse_unknown_task)
if celeryconfig.settings_problem is not None and STOCK_COMMANDS.intersection(sys.argv[1:]):
    refuse(ConfigurationError(celeryconfig.settings_problem))
if "celery.bin.celery" in sys.modules and (mistake := mistake_of_options(sys.argv[1:])):
    refuse(mistake)
if command == "flower" and (mistake := mistake_of_flower(words_after, os.environ)):
    refuse(mistake)


@signals.setup_logging.connect
def set_up_logging(loglevel: int | str | None = None, logfile: str | None = None, **_: Any) -> None:
    """Send all log lines through our own formatter; Celery then leaves logging alone.

    Args:
        loglevel: Celery's level; it counts only if it was given, since Celery's default is not ours.
        logfile: the log's file; None for standard error.

    Raises:
        OSError: the file cannot be opened.
    """
    given = any(argument == "-l" or LOGLEVEL.match(argument) for argument in sys.argv[1:])
    level = loglevel if given and loglevel is not None else celeryconfig.settings.log_level
    logging.captureWarnings(True)
    configure_logging(
        log_format=celeryconfig.settings.log_format,
        level=logging.getLevelName(level) if isinstance(level, int) else level.upper(),
        file=logfile,
        namespace=celeryconfig.settings.namespace,
    )


@signals.celeryd_init.connect
def refuse_bad_settings(sender: str = "", options: Mapping[str, Any] | None = None, **_: Any) -> None:
    """Refuse to start a worker with wrong settings or options, or with debug switches beside real tokens.

    It sets up logging too: Celery does so only after the worker was checked and has replayed journals.
    """
    options = options or {}
    logfile, pidfile = (options.get(name) for name in ("logfile", "pidfile"))
    set_up_logging(options.get("loglevel"), node_format(logfile, sender) if logfile else None)
    if pidfile and not Path(pidfile).absolute().parent.is_dir():
        refuse(f"there is no folder {redact(str(Path(pidfile).parent))}, which --pidfile names")
    known, asked = set(QUEUES), set()
    for names in (options.get("queues") or (), options.get("exclude_queues") or ()):
        asked |= set(names.split(",") if isinstance(names, str) else names)
    unknown = sorted(asked - known)
    if unknown:
        refuse(f"there is no queue {', '.join(map(redact, unknown))}; there are {', '.join(sorted(known))}")
    keep_memory_private()
    share_one_heap()
    install_last_words()
    try:
        if not load_settings().sandboxed:
            refuse_debug_switches(os.environ)
    except ConfigurationError as error:
        refuse(error)
    watchdog.begin(celeryconfig.settings.hang_seconds)


@signals.beat_init.connect
def refuse_bad_settings_of_beat(**_: Any) -> None:
    """Refuse to start beat on a setting that cannot be used."""
    keep_memory_private()
    install_last_words()
    if celeryconfig.settings_problem is not None:
        refuse(celeryconfig.settings_problem)
    begin_remote({"process": "beat"}, namespace=celeryconfig.settings.namespace, traces=False)
    watchdog.begin(celeryconfig.settings.hang_seconds)


@signals.worker_init.connect
def check_before_work(sender: Any, **_: Any) -> None:
    """Check database, keyring and journal before the worker takes its first message."""
    if command == "graph":  # which draws a worker that is never started
        return
    module = str(getattr(sender.pool_cls, "__module__", sender.pool_cls)).rsplit(".", 1)[-1]
    if module not in POOLS:
        refuse(POOL_REFUSED.format(module))
    if POOLS[module] != "prefork":
        begin_work(sender)
        return
    services = build_services()  # a child that may not work would be started again and again
    begin_remote({"process": services.owner}, namespace=services.settings.namespace, traces=False)
    try:
        arrive(services.ground, services.preflight.enter, alive=lambda: show_life(sender))
        services.preflight.goodbye()
    except EvertokenError as error:
        refuse(error)
    finally:
        services.close()


@signals.worker_process_init.connect
def begin_work(sender: Any = None, **_: Any) -> None:
    """Set this process up for work: journals of dead processes are replayed before anything is claimed.

    Metrics and /healthz are served first, so that a wait for the database can be seen.
    """
    try:
        services = shared_services()
        begin_remote({"process": services.owner}, namespace=services.settings.namespace)
        services.report_outages()
        if services.settings.metrics_port is not None:
            services.serve_metrics(services.settings.metrics_port, silent=watchdog.silent_seconds, alive=watchdog.well)
        arrive(services.ground, services.presence.begin, alive=lambda: show_life(sender))
    except EvertokenError as error:
        refuse(error)


def show_life(worker: Any) -> None:
    """Touch a worker's heartbeat file while it waits for the database; a child of a worker has none."""
    if worker is not None:
        touch(celeryconfig.settings.run_dir, f"worker-{worker.hostname}")


@signals.worker_process_shutdown.connect
@signals.worker_shutdown.connect
def end_work(**_: Any) -> None:
    """Take this process off the list, or log that the database is away, and close what was opened.

    If Celery ends the process late, a thread that ends it comes here too: the second one finds nothing left to do.
    """
    services = shared_services()
    with closing:
        try:
            services.presence.leave()
        except EvertokenError as error:
            report(Fact("worker.left_untold", {"reason": str(error)}, level="warning"))
        finally:
            services.close()
            end_remote()


closing: Final = threading.Lock()
"""Held by the thread that closes what this process opened."""


app.steps["worker"].add("worker.consumer:Watched")
app.steps["consumer"].add("worker.consumer:LooksAgain")


def publish(task: Any, *args: Any, **options: Any) -> bool:
    """Publish a task; a broker that is away costs one scan and never an exception.

    A process that is asked to end publishes nothing: a broker that stands still would hold up its end.

    Args:
        task: the task.
        args: its arguments; ids only.
        options: as for `apply_async`, such as `countdown` in seconds.

    Returns:
        False if the message was not sent: the next scan finds its rows again.
    """
    if shared_services().stop.is_set():
        return False
    if SPANS.carried is not None and (trace := SPANS.carried()):
        options["headers"] = {TRACE: trace}
    try:
        task.apply_async(args, argsrepr=repr(args), **options)
    except (OperationalError, OSError, AttributeError) as error:
        # After a timeout kombu tries again over a channel that has lost its connection: an AttributeError.
        note_unpublished(task.name, error)
        return False
    note_published(task.name)
    return True


def note_unpublished(task: str, error: BaseException) -> None:
    """Log and count a message that the broker did not take; further ones are only counted, until it takes one."""
    fact = Fact("message.unpublished", {"task": task, "reason": type(error).__name__}, level="warning")
    count_fact(fact)
    if not _unpublished:
        log_fact(fact)
    _unpublished[task] += 1


def note_published(task: str) -> None:
    """Log that the broker takes a task's messages again, if it did not before; one queue may fail while others work."""
    if task in _unpublished:
        fact = Fact("message.published", {"lost": _unpublished.total()})
        _unpublished.clear()
        count_fact(fact)
        log_fact(fact)


def all_published() -> bool:
    """Return False while the broker does not take this process's messages."""
    return not _unpublished
