"""docs/notices.md and its schema hold what is posted: against real requests, and with the page's own receiver."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest

from tests.store.conftest import Fleet, seal_name
from tests.support.ground import silent
from tests.support.receiver import SECRET, running_receiver
from worker.addresses import read_notice_addresses
from worker.egress import Egress
from worker.links import ConsentLinks
from worker.notices.delivery import Notifier
from worker.policy.notice_kinds import KINDS
from worker.store import Store
from worker.vault import Token
from worker.vault.webhooks import WebhookSigner, new_webhook_secret

DOCS: Final = Path(__file__).parents[2] / "docs"
OF_CREATORS: Final = {kind for kind, name in KINDS.items() if name.startswith("grant.")}


def schema() -> dict[str, Any]:
    """Return the schema of the page."""
    read: dict[str, Any] = json.loads((DOCS / "notices.schema.json").read_text(encoding="utf-8"))
    return read


def notifier_to(store: Store, url: str, *secrets: str, links: ConsentLinks | None = None) -> Notifier:
    """Return a notifier to one address."""
    return Notifier(
        store=store,
        hook=silent,
        addresses=read_notice_addresses("EVERTOKEN_NOTICE_URL", url),
        signer=WebhookSigner([Token(secret) for secret in secrets or (SECRET,)]),
        egress=Egress(),
        links=links,
    )


@pytest.fixture
def grant_id(store: Store) -> int:
    """The grant of a creator whom the operator calls user-42."""
    return Fleet(store).add("ada", reference="user-42").grant_id


def test_the_schema_knows_each_kind_once() -> None:
    """The list of kinds in the code is that of the schema."""
    described = [branch["properties"]["type"]["const"] for branch in schema()["oneOf"]]

    assert sorted(described) == sorted(KINDS.values())


def test_what_is_posted_fits_the_schema(store: Store, grant_id: int, links: ConsentLinks) -> None:
    """Each kind as it is posted is taken by its branch, and by no other one."""
    for kind in KINDS.keys() - {"connected", "contract_changed", "reauth_soon"}:
        store.raise_alarm(kind, kind, "why", grant_id=grant_id if kind in OF_CREATORS else None)
    fleet = Fleet(store)
    ends_at = store.ping() + timedelta(days=6)
    ending = fleet.consent("bob", issued_at=ends_at - timedelta(days=365), refresh_expires_at=ends_at)
    store.save_consents([ending], seal_name, replace=True, announce=True)
    assert store.warn_of_ends(500) == 1
    for life in ("86400", "7200"):
        store.note_terms([(number, {"access_seconds": life}) for number in range(3)])
    with running_receiver() as receiver:
        notifier_to(store, receiver.url, links=links).deliver()

    jsonschema.Draft202012Validator.check_schema(schema())
    validator = jsonschema.Draft202012Validator(schema())
    contents = [posted.verified() for posted in receiver.got]
    assert sorted(content["type"] for content in contents) == sorted(KINDS.values())
    changes: list[dict[str, Any]] = [
        {"data": {}}, {"timestamp": "yesterday"}, {"type": "grant.unheard"}, {"more": 1}
    ]  # fmt: skip
    for content in contents:
        validator.validate(content)
        for change in changes:
            assert not validator.is_valid(content | change), change


@contextmanager
def node_receiver(secret: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the receiver of the page in Node; yield its address and its process."""
    node = shutil.which("node")
    if node is None:
        pytest.skip(
            "node is not installed: the page's receiver in JavaScript is not tried (Debian: apt install nodejs)"
        )
    page = (DOCS / "notices.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```js\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    process = subprocess.Popen(
        [node, "-e", code],
        env={"PATH": os.environ["PATH"], "NOTICE_SECRET": secret, "PORT": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        try:
            yield f"http://127.0.0.1:{process.stderr.readline().strip()}/hook", process
        finally:
            process.kill()


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """Post once and return the status."""
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - our own loopback address
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_receiver_in_node_verifies_what_is_posted(store: Store, grant_id: int) -> None:
    """It takes a notice once with either of two secrets, and refuses a changed, an old and an unsigned one."""
    old, new = new_webhook_secret(), new_webhook_secret()
    store.raise_alarm("one", "reauth_needed", "zur\u00fcckgezogen \U0001f512", grant_id=grant_id)
    with running_receiver() as recorder:
        notifier_to(store, recorder.url, old, new).deliver()
    (posted,) = recorder.got
    with node_receiver(new) as (url, process):
        assert post(url, posted.body, posted.headers) == 204
        assert post(url, posted.body, posted.headers) == 204
        assert post(url, posted.body.replace(b"reauth", b"revoke"), posted.headers) == 401
        assert post(url, posted.body, posted.headers | {"webhook-timestamp": "1700000000"}) == 401
        unsigned = {name: value for name, value in posted.headers.items() if name != "webhook-signature"}
        assert post(url, posted.body, unsigned) == 401
        assert post(url, posted.body, posted.headers | {"webhook-signature": "v1,"}) == 401
        process.kill()
        assert process.stdout is not None
        (line,) = process.stdout.read().splitlines()

    assert json.loads(line) == {"id": posted.message_id, "notice": posted.verified(old)}
