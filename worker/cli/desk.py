"""`celery -A worker desk`: tokens over HTTP, pages for creators who connect, and pages for operators."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from worker.cli import output

if TYPE_CHECKING:
    from worker.services import Services

NEEDED = ("httptools", "jinja2", "starlette", "uvicorn")


@click.command(cls=output.Command)
def desk() -> None:
    """Serve the desk on EVERTOKEN_DESK_ADDRESS until SIGTERM or Ctrl-C.

    It needs what a worker needs, and EVERTOKEN_DESK_SECRET and EVERTOKEN_DESK_PASSWORD.
    """
    from worker.desk.lacking import refuse_lacking  # noqa: PLC0415 - Celery loads this module on every start
    from worker.errors import ConfigurationError  # noqa: PLC0415 - as above
    from worker.telemetry import Fact, end_remote  # noqa: PLC0415 - as above

    try:
        from worker.desk.serving import Desk  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        raise ConfigurationError(
            f"the desk needs {error.name}, which is not installed: install `evertoken[desk]`"
        ) from None
    refuse_lacking(output.settings())
    with output.services(changes_pairs=True) as services:
        _prepare(services)
        settings = services.settings

        def ready(port: int) -> None:
            services.hook(Fact("desk.started", {"address": settings.desk_address, "port": port}))

        listened = Desk(services, ready=ready).run()
        services.hook(Fact("desk.ended"))
        end_remote()
    if not listened:
        output.fail(f"the desk cannot listen on {settings.desk_address} port {settings.desk_port}; see the line above")
    sys.exit(0)


def _prepare(services: Services) -> None:
    """Log as a worker does, and serve the metrics."""
    from worker.telemetry import begin_remote, configure_logging  # noqa: PLC0415 - as above

    settings = services.settings
    configure_logging(log_format=settings.log_format, level=settings.log_level, namespace=settings.namespace)
    begin_remote({"process": services.owner}, namespace=settings.namespace)
    services.report_outages()
    if settings.metrics_port is not None:
        services.serve_metrics(settings.metrics_port)
