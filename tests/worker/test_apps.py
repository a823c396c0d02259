"""One app is configured; its id is on each grant, and a wrong one is reported and changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import APP_ID
from tests.support.world import World
from worker.cli import checks
from worker.errors import UnknownCreatorError
from worker.tokens import token_reader
from worker.upkeep.rekey import RekeyReport
from worker.vault import Keyring

NewWorld = Callable[..., World]


def test_a_wrong_app_id_touches_no_grant_and_is_reported(new_world: NewWorld) -> None:
    """With another id in the settings nothing is refreshed or read, the doctor says so, and the right id mends it."""
    world = new_world()
    grant = world.creator()
    mistyped = world.another(TIKTOK_APP_ID="mistyped")

    assert mistyped.refresher.refresh(grant.grant_id).kind == "skipped"
    with pytest.raises(UnknownCreatorError):
        token_reader(mistyped).access_token(grant.creator_id)
    finding = checks.grants(mistyped)
    assert finding.state == "warn"
    assert f"1 more belong to app {APP_ID}" in finding.detail
    assert "is EVERTOKEN_TIKTOK_APP_ID right?" in finding.detail

    assert token_reader(world.services).access_token(grant.creator_id)
    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"


def test_grants_from_before_say_their_app_after_a_rotation(new_world: NewWorld, keyring: Keyring) -> None:
    """They are refreshed as before; after `keys rotate` their pairs are bound to the app, and their rows name it."""
    world = new_world()
    grants = [world.creator() for _ in range(3)]
    store = world.services.store
    store.transact(lambda connection: connection.exec_driver_sql("UPDATE grants SET app_id = ''"), writes=True)
    assert world.services.refresher.refresh(grants[0].grant_id).kind == "refreshed"
    world.services.preflight.enter()
    world.services.rekeyer.rotate(RekeyReport(keyring.active))

    rows = "SELECT DISTINCT app_id FROM grants"
    apps = store.transact(lambda connection: connection.exec_driver_sql(rows).scalars().all(), writes=False)
    assert apps == [APP_ID]
    assert world.services.refresher.refresh(grants[1].grant_id).kind == "refreshed"
