"""Forgetting a creator in the database: every table is covered, also one that is added later."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Date,
    Double,
    Integer,
    LargeBinary,
    Table,
    insert,
    select,
)

from tests.store.conftest import Fleet
from worker.errors import ReauthNeededError, UnknownCreatorError
from worker.policy.scope import ConsumerScope
from worker.store import ConsentResult, GrantStatus, Likeness, Store
from worker.store.clock import Instant
from worker.store.forgetting import CREATOR_KEYS, keyed_tables
from worker.store.models import METADATA

WITHOUT_CREATORS = {
    "beat",
    "benchmarks",
    "brake",
    "contract_terms",
    "notice_receivers",
    "sentinels",
    "tombstones",
    "workers",
}
"""Tables that hold nothing of a creator; a tombstone holds a hash."""
LISTS_CREATORS = {"consumers"}
"""Tables whose rows are of somebody else and may name creators in a list, which a test of its own looks at."""
KNOWN_COLUMNS = {"grant_id", "creator_id", "creator_hash", "creator_handle_name"}
"""Names of columns that point to a creator: two by which rows are deleted, the tombstone's, and who mentioned one."""


def forget(store: Store, creator_id: str) -> None:
    """Forget a creator as the use case does, without TikTok."""
    grant_id = store.begin_forgetting(creator_id)
    if grant_id is not None:
        store.mark_revoked(creator_id)
        while store.delete_some_rows(grant_id, 2):
            pass
        assert store.end_forgetting(grant_id)


def hangs_on(table: Table) -> set[str]:
    """Return the tables whose rows take a row of this table with them when they are deleted."""
    return {key.column.table.name for key in table.foreign_keys if key.ondelete == "CASCADE"}


def test_every_table_is_covered_or_holds_nothing_of_a_creator() -> None:
    """A new table needs a column `grant_id` or `creator_id`, or a parent that has one and takes its rows along."""
    covered = {table.name for table in keyed_tables()} | {"grants"}
    left = [table for table in METADATA.sorted_tables if table.name not in covered | WITHOUT_CREATORS | LISTS_CREATORS]

    assert [table.name for table in left if not hangs_on(table) & covered] == []
    assert covered & WITHOUT_CREATORS == set()
    assert covered >= {"pairs", "attempts", "snapshots", "notices", "links"}


def test_no_column_points_to_a_creator_by_another_name() -> None:
    """`creators`, `of_grant` and the like would be passed over; so would a foreign key to the grants."""
    odd = [
        f"{table.name}.{column.name}"
        for table in METADATA.sorted_tables
        for column in table.c
        if (re.search("creator|grant", column.name) and column.name not in KNOWN_COLUMNS)
        or (any(key.column.table.name == "grants" for key in column.foreign_keys) and column.name not in CREATOR_KEYS)
    ]

    assert odd == []


def fill(connection: Connection, grants: Iterable[tuple[int, str]]) -> None:
    """Put a row that tells of each creator into every table that can hold one, with the creator's id in every text."""
    for grant_id, creator_id in grants:
        made: dict[str, Any] = {"consumers": connection.execute(select(METADATA.tables["consumers"])).first()}
        for table in METADATA.sorted_tables:
            if table.name in WITHOUT_CREATORS or table.name in made or table.name == "grants":
                continue
            row = {column.name: value(table, column, grant_id, creator_id, made) for column in table.c}
            connection.execute(insert(table).values({name: each for name, each in row.items() if each is not None}))
            made[table.name] = connection.execute(
                select(table).order_by(*(column.desc() for column in table.primary_key)).limit(1)
            ).one()


def value(table: Table, column: Column[Any], grant_id: int, creator_id: str, made: dict[str, Any]) -> Any:
    """Return something that the column takes."""
    parent = next((key.column for key in column.foreign_keys), None)
    if column.name in CREATOR_KEYS:
        return grant_id if column.name == "grant_id" else creator_id
    if parent is not None:
        return getattr(made[parent.table.name], parent.name)
    checks = " ".join(str(check.sqltext) for check in table.constraints if isinstance(check, CheckConstraint))
    if choice := re.search(rf"\b{column.name} IN \('(\w+)'", checks):
        return choice[1]
    kinds: tuple[tuple[Any, Any], ...] = (
        (Instant, datetime.now(UTC)), (JSON, {"of": creator_id}), (LargeBinary, creator_id.encode()), (Boolean, False),
        (Date, datetime.now(UTC).date()),
        (Integer, None if column.autoincrement is True else 1_000 + grant_id), (Double, 0.5),
    )  # fmt: skip
    return next((each for kind, each in kinds if isinstance(column.type, kind)), f"{column.name} {creator_id}")


def told(fleet: Fleet, creator_id: str, grant_id: int = -1) -> list[str]:
    """Return the tables in which something of a creator stands, in whatever column; tombstones are left out."""

    def look(connection: Connection) -> list[str]:
        return [
            table.name
            for table in METADATA.sorted_tables
            for rows in [connection.execute(select(table)).all()]
            if any(creator_id in repr(tuple(row)) or getattr(row, "grant_id", None) == grant_id for row in rows)
            and table.name != "tombstones"
        ]

    return fleet.store.transact(look, writes=False)


def test_nothing_of_a_forgotten_creator_is_left_in_any_table(fleet: Fleet) -> None:
    """Every table of the schema has rows of two creators; only those of the other are left."""
    scope = ConsumerScope(creators=frozenset({"creator-carol"}))
    fleet.store.add_consumer("neighbour", handle="h", key_hash="k", scope=scope)
    rows = [(fleet.add(name).grant_id, name) for name in ("creator-ada", "creator-bob")]
    fleet.store.transact(lambda connection: fill(connection, rows), writes=True)
    (ada, _), (bob, _) = rows
    tables = told(fleet, "creator-ada", ada)
    assert {table.name for table in keyed_tables()} | {"grants"} <= set(tables)

    forget(fleet.store, "creator-ada")

    assert told(fleet, "creator-ada", ada) == []
    assert told(fleet, "creator-bob", bob) == tables
    tombstone = fleet.store.tombstones(["creator-ada"])["creator-ada"]
    assert tombstone.finished_at is not None


@pytest.mark.as_owner
def test_forgetting_twice_changes_nothing_and_an_unknown_creator_is_an_error(fleet: Fleet) -> None:
    """A typo is no success; the same command again is."""
    fleet.add("ada")
    forget(fleet.store, "ada")
    before = fleet.store.tombstones(["ada"])

    forget(fleet.store, "ada")

    assert fleet.store.tombstones(["ada"]) == before
    with pytest.raises(UnknownCreatorError):
        forget(fleet.store, "adda")


def test_the_id_of_a_forgotten_grant_is_never_given_again(fleet: Fleet) -> None:
    """A late answer to the old grant must not be stored under a new one."""
    first = fleet.add("ada")
    forget(fleet.store, "ada")
    second = fleet.add("ada")
    forget(fleet.store, "ada")

    third = fleet.add("bob")

    assert first.grant_id < second.grant_id < third.grant_id


def test_a_consumers_list_no_longer_names_a_forgotten_creator(fleet: Fleet) -> None:
    """A list that becomes empty permits nobody, not everybody."""
    for name in ("ada", "bob"):
        fleet.add(name)
    for number, creators in enumerate([{"ada", "bob"}, {"ada"}]):
        scope = ConsumerScope(creators=frozenset(creators))
        fleet.store.add_consumer(f"neighbour {number}", handle=f"h{number}", key_hash="k", scope=scope)

    forget(fleet.store, "ada")

    scopes = [each.scope for each in fleet.store.consumers()]
    assert [sorted(scope.creators) for scope in scopes] == [["bob"], []]
    assert not any(scope.everyone or scope.permits("ada", None) for scope in scopes)


def test_a_creator_of_whom_only_a_link_is_kept_is_forgotten_too(fleet: Fleet) -> None:
    """Somebody who was invited and never came."""
    fleet.store.add_link("handle", life_seconds=60, creator_id="ada")

    assert fleet.store.begin_forgetting("ada") is None

    assert fleet.store.link("handle") is None
    assert "ada" in fleet.store.tombstones(["ada"])


def test_a_creator_who_authorizes_again_meanwhile_keeps_the_new_consent(fleet: Fleet) -> None:
    """The wish to be forgotten is older than the consent, so it lapses."""
    grant = fleet.add("ada")
    fleet.store.begin_forgetting("ada")
    fleet.add("ada", replace=True)

    assert fleet.store.delete_some_rows(grant.grant_id, 10) == 0
    assert fleet.store.end_forgetting(grant.grant_id) is False
    assert fleet.store.end_forgetting(grant.grant_id) is None

    assert fleet.store.grant("ada").status is GrantStatus.ACTIVE
    assert fleet.store.tombstones(["ada"]) == {}


def test_of_two_who_end_it_the_second_takes_nothing_for_a_new_consent(fleet: Fleet) -> None:
    """The command and upkeep of a worker may both come to the end; the creator stays forgotten."""
    grant = fleet.add("ada")
    forget(fleet.store, "ada")

    assert fleet.store.end_forgetting(grant.grant_id) is None

    assert fleet.store.tombstones(["ada"])["ada"].finished_at is not None


def test_an_import_does_not_bring_a_forgotten_creator_back(fleet: Fleet) -> None:
    """Only a pair that was surely issued since does: an old file still lies somewhere."""
    item = fleet.consent("ada")
    fleet.keep([item])
    forget(fleet.store, "ada")

    again = fleet.keep([item, fleet.consent("bob")], likeness=Likeness.OTHER)
    undated = fleet.keep([fleet.consent("ada", issued_at=fleet.soon(60), dated=False)], likeness=Likeness.OTHER)
    later = fleet.keep([fleet.consent("ada", issued_at=fleet.soon(1))], likeness=Likeness.OTHER)

    assert again == [ConsentResult.FORGOTTEN, ConsentResult.CREATED]
    assert (undated, later) == ([ConsentResult.FORGOTTEN], [ConsentResult.CREATED])


def test_a_forgotten_owner_of_anothers_pair_is_named_nowhere(fleet: Fleet) -> None:
    """The grant stays held, and what was said about it no longer has the owner's id."""
    wrong = fleet.add("wrong-id")
    fleet.add("the-owner")
    claim = fleet.claim(wrong.grant_id)
    fleet.store.hold_pair(claim.grant_id, claim.consent, claim.pair_generation, belongs_to="the-owner")
    fleet.store.raise_alarm("k", "wrong_owner", "it belongs to creator the-owner", grant_id=wrong.grant_id)

    forget(fleet.store, "the-owner")

    assert told(fleet, "the-owner") == []
    assert fleet.store.grant("wrong-id").belongs_to == "(forgotten)"


def test_pairs_of_creators_who_were_asked_long_ago_are_wiped(fleet: Fleet) -> None:
    """Lost grants lose their tokens after the time that was set; a reader still learns why there is none."""
    lost, fresh = fleet.add("lost"), fleet.add("fresh-lost")
    fleet.add("fine")
    fleet.sql("UPDATE grants SET status = 'needs_reauth' WHERE creator_id LIKE '%lost'")
    fleet.sql("UPDATE grants SET updated_at = updated_at - 100000 WHERE id = :id", id=lost.grant_id)

    assert fleet.store.wipe_lost(90, 10) == 1
    assert fleet.store.wipe_lost(90, 10) == 0

    assert {pair.creator_id for pair in fleet.store.all_pairs()} == {fresh.creator_id, "fine"}
    with pytest.raises(ReauthNeededError):
        fleet.store.served_pair("lost")


def test_a_wiped_pair_that_was_refused_does_not_come_back_by_its_old_file(fleet: Fleet) -> None:
    """With no pair left to compare, only a date after the refused pair's counts."""
    item = fleet.consent("ada")
    fleet.keep([item])
    fleet.sql("UPDATE grants SET status = 'needs_reauth', updated_at = 0")
    fleet.store.wipe_lost(90, 10)

    assert fleet.keep([item], replace=True, likeness=Likeness.OTHER) == [ConsentResult.OLDER]
    newer = fleet.consent("ada", issued_at=fleet.soon(1))
    assert fleet.keep([newer], replace=True, likeness=Likeness.OTHER) == [ConsentResult.REPLACED]
