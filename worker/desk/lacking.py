"""Which settings the desk lacks; told apart, since neither the doctor nor a wrong start needs the web's libraries."""

from __future__ import annotations

from worker.errors import ConfigurationError
from worker.settings import Settings
from worker.sources import PREFIX


def refuse_lacking(settings: Settings) -> None:
    """Refuse to start without the secrets of the desk.

    Raises:
        ConfigurationError: its text names all that are missing.
    """
    lacking = []
    if settings.desk_secret is None:
        lacking.append(
            f"{PREFIX}DESK_SECRET is missing (or name a file that holds it in {PREFIX}DESK_SECRET_FILE); "
            "`openssl rand -hex 32` makes one"
        )
    if settings.desk_password is None and settings.desk_operator_header is None:
        lacking.append(
            f"{PREFIX}DESK_PASSWORD is missing (or name a file that holds it in {PREFIX}DESK_PASSWORD_FILE, or let a "
            f"proxy name the operators: {PREFIX}DESK_OPERATOR_HEADER)"
        )
    if lacking:
        raise ConfigurationError("; ".join(lacking))
