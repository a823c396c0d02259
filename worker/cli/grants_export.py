"""`celery -A worker grants export`: all living pairs, sealed for a recipient, for `grants import` of another place."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from worker.cli import output
from worker.cli.whole_file import STANDARD_OUTPUT, whole_file
from worker.errors import NotReadyError, UsageError

if TYPE_CHECKING:
    from worker.services import Services
    from worker.store import ExportedGrant

PAGE: Final = 500


@click.command("export", cls=output.Command)
@click.option(
    "--to",
    "place",
    type=click.Path(path_type=Path),
    required=True,
    help="A new file, none is overwritten; - for standard output.",
)
@click.option("--for", "recipient", metavar="RECIPIENT", required=True, help="The public part of `keys recipient`.")
@output.json_option
def export(place: Path, *, recipient: str, as_json: bool) -> None:
    """Write both tokens of each active grant into a file that only the recipient's key opens.

    Pause first (`grants pause --all`): a refresh that follows makes the exported pair worthless. The file appears under
    its name only when it is whole; to standard output nothing is written before that. `grants import FILE --key KEY`
    reads it in another installation of the same app.
    """
    from worker.telemetry import Fact, report  # noqa: PLC0415 - Celery loads this module on every start
    from worker.vault.exports import ExportSealer, Recipient  # noqa: PLC0415 - as above

    known = Recipient.read(recipient)
    printed = place == STANDARD_OUTPUT
    if printed and as_json:
        raise UsageError("--json and the sealed file both need standard output: name a file with --to")
    with output.services() as services, _opened(place) as file:
        sealer = ExportSealer(known, app_id=services.app_id)
        file.write(sealer.header)
        count = 0
        for grant in _grants(services):
            file.write(sealer.line(_line(services, grant)))
            count += 1
        file.write(sealer.end())
        paused = any(not each.reference and not each.creator_id for each in services.store.pauses())
    report(Fact("grants.exported", {"count": count, "recipient": known.name}, level="warning"))
    if as_json:
        output.print_json({"file": str(place), "grants": count, "recipient": known.name, "paused": paused})
    else:
        said = f"{place}: {output.counted(count, 'grant')}, sealed for recipient {known.name}"
        if printed:
            output.note(said)
        else:
            output.say(said)
    if not paused:
        output.note(
            "the app is not paused, so the next refresh of a grant makes its exported pair worthless: "
            "`evertoken grants pause --all`, and export again"
        )


@contextmanager
def _opened(place: Path) -> Iterator[BinaryIO]:
    """Give the file to write; for `-` one without a name, which is copied to standard output at the end."""
    if place != STANDARD_OUTPUT:
        with whole_file(place, replaces=False) as part, part.open("wb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as held:
        yield held
        held.seek(0)
        shutil.copyfileobj(held, sys.stdout.buffer)
        sys.stdout.flush()


def _grants(services: Services) -> Iterator[ExportedGrant]:
    """Yield what is exported.

    Raises:
        NotReadyError: a grant is being refreshed, so its pair may be dead in a moment.
    """
    after = 0
    while page := services.store.exported_grants(after, PAGE):
        for grant in page:
            if grant.under_way:
                raise NotReadyError(
                    f"creator {grant.pair.creator_id} is being refreshed right now, so nothing was written: pause with "
                    "`evertoken grants pause --all`, wait a moment and export again"
                )
            yield grant
        after = page[-1].pair.grant_id


def _line(services: Services, grant: ExportedGrant) -> bytes:
    from worker.vault import PairPlace  # noqa: PLC0415 - Celery loads this module on every start

    pair = grant.pair
    place = PairPlace(pair.creator_id, pair.consent, pair.generation)
    fields = {
        "creator_id": pair.creator_id,
        "reference": grant.reference,
        "access_token": services.sealer.open_access(pair.sealed, place).reveal(),
        "refresh_token": services.sealer.open_refresh(pair.sealed, place).reveal(),
        "scope": pair.scope,
        "issued_at": output.plain(pair.issued_at),
        "expires_at": output.plain(pair.access_expires_at),
        "refresh_token_expires_at": output.plain(pair.refresh_expires_at),
    }
    return json.dumps(fields).encode() + b"\n"
