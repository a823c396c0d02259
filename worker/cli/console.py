"""The console command `evertoken`: the same as `celery -A worker`, from any folder."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version

from celery.bin.celery import celery

import worker.celery
from worker.cli.output import keep_short_helps_whole


def main() -> None:
    """Run a command of Celery's command line with our app, which is imported before Celery looks for it.

    Celery would look into the folder that the process was started in first, and take a `worker.py` there for the app.

    Raises:
        SystemExit: always, with the command's exit status.
    """
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        print(_versions())  # noqa: T201 - the answer itself
        sys.exit(0)
    keep_short_helps_whole(celery)
    celery(args=["-A", worker.celery.__name__, *arguments], prog_name="evertoken", auto_envvar_prefix="CELERY")


def _versions() -> str:
    return f"evertoken {version('evertoken')} (celery {version('celery')}, Python {platform.python_version()})"


if __name__ == "__main__":
    main()
