"""Reading grants and their pairs, and what people request: refreshes, pulls and revocations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, or_, select, text, update

from worker.errors import LostError, NotFoundError, PausedError, ReauthNeededError, RevokedError, UnknownCreatorError
from worker.policy import wording
from worker.store.clock import now
from worker.store.conditions import conditions
from worker.store.engine import Transactions, reads, writes
from worker.store.models import ATTEMPTS, GRANTS, HEALTHY, PAIRS, REFERENCED
from worker.store.outbox import REVOKED, insert_notice, withdraw_requests
from worker.store.rows import (
    CURRENT_PAIR,
    SERVED_PAIR,
    UNSAID,
    AnyRow,
    app_of,
    attempt_view,
    current_pair,
    grant_columns,
    grant_view,
    is_current_pair,
    is_of_app,
    is_of_named_app,
    lease_is_free,
    served_pair,
)
from worker.store.values import (
    AttemptView,
    CurrentPair,
    ExportedGrant,
    GrantCondition,
    GrantStatus,
    GrantView,
    ServedPair,
)
from worker.vault.redaction import redact


class Grants(Transactions):
    """One grant at a time, or a page of them."""

    @reads
    def current_pair(self, connection: Connection, creator_id: str) -> CurrentPair:
        """Return the pair that is served for a creator, whatever the grant's status.

        Raises:
            UnknownCreatorError: no such creator.
            RevokedError: the grant was ended here and its pair wiped.
            ReauthNeededError: its pair was wiped because its key is lost, and the creator is asked to authorize.
            LostError: the pair is missing without a known reason.
        """
        row = connection.execute(
            select(*CURRENT_PAIR)
            .join_from(GRANTS, PAIRS, is_current_pair())
            .where(is_of_app(connection), GRANTS.c.creator_id == creator_id, PAIRS.c.wiped_at.is_(None))
        ).first()
        if row is None:
            _refuse_ended(_found(connection, creator_id))
            raise _lost(creator_id)
        return current_pair(row)

    @reads
    def served_pair(self, connection: Connection, creator_id: str) -> ServedPair:
        """Return what a reader of access tokens needs of a creator's grant; errors are those of `current_pair`.

        It reads the columns that a reader's role may read, and no others: no refresh token among them.
        """
        row = connection.execute(_SERVED, {"of_app": app_of(connection), "of_creator": creator_id}).first()
        if row is None:
            raise _unknown(creator_id)
        _refuse_revoked(row)
        if row.sealed_access is None:
            _refuse_ended(row)
            raise _lost(creator_id)
        return served_pair(row)

    @reads
    def served_pairs(
        self, connection: Connection, creator_ids: Sequence[str]
    ) -> dict[str, tuple[ServedPair, str | None]]:
        """Return by creator what `served_pair` returns, and the grant's reference; those without a pair are left out.

        Args:
            connection: given by the decorator.
            creator_ids: at most some hundreds.
        """
        rows = connection.execute(_SERVED_MANY, {"of_app": app_of(connection), "of_creators": creator_ids})
        return {
            row.creator_id: (served_pair(row), row.reference)
            for row in rows
            if row.status != GrantStatus.REVOKED.value and row.sealed_access is not None
        }

    @reads
    def grant(self, connection: Connection, creator_id: str) -> GrantView:
        """Return a creator's grant.

        Raises:
            UnknownCreatorError: no such creator.
        """
        return grant_view(_found(connection, creator_id))

    @reads
    def grant_by_id(self, connection: Connection, grant_id: int) -> GrantView:
        """Return a grant.

        Raises:
            NotFoundError: no such grant.
        """
        row = connection.execute(select(*grant_columns(connection)).where(GRANTS.c.id == grant_id)).first()
        if row is None:
            raise NotFoundError(f"there is no grant {grant_id}")
        return grant_view(row)

    @reads
    def grants(
        self,
        connection: Connection,
        *,
        status: GrantStatus | None = None,
        condition: GrantCondition | None = None,
        reference: str | None = None,
        after_id: int = 0,
        limit: int = 100,
    ) -> list[GrantView]:
        """Return a page of grants in the order of their ids.

        Args:
            connection: given by the decorator.
            status: only grants of this status.
            condition: only grants that meet this condition now.
            reference: only grants with this reference.
            after_id: the last id of the page before.
            limit: most grants to return.
        """
        ours = select(*grant_columns(connection)).where(is_of_app(connection), GRANTS.c.id > after_id)
        page = ours.order_by(GRANTS.c.id).limit(limit)
        if status is not None:
            page = page.where(GRANTS.c.status == status.value)
        if condition is not None:
            at = connection.execute(select(now())).scalar_one()
            page = page.where(conditions(connection, at)[condition])
        if reference is not None:
            page = page.where(text(REFERENCED), GRANTS.c.reference == reference)
        return [grant_view(row) for row in connection.execute(page)]

    @reads
    def search_grants(self, connection: Connection, wanted: str, limit: int = 100) -> list[GrantView]:
        """Return grants whose creator or reference is this text or, if there is none, begins with it."""
        page = select(*grant_columns(connection)).where(is_of_app(connection)).order_by(GRANTS.c.id).limit(limit)
        is_it = or_(GRANTS.c.creator_id == wanted, and_(text(REFERENCED), GRANTS.c.reference == wanted))
        begins = or_(
            func.substr(GRANTS.c.creator_id, 1, len(wanted)) == wanted,
            func.substr(GRANTS.c.reference, 1, len(wanted)) == wanted,
        )
        found = connection.execute(page.where(is_it)).all() or connection.execute(page.where(begins)).all()
        return [grant_view(row) for row in found]

    @reads
    def exported_grants(self, connection: Connection, after_id: int, limit: int) -> list[ExportedGrant]:
        """Return a page of active grants with their pairs, in the order of their ids; held pairs are left out."""
        page = (
            select(*CURRENT_PAIR, GRANTS.c.reference, (~lease_is_free()).label("under_way"))
            .join_from(GRANTS, PAIRS, is_current_pair())
            .where(is_of_app(connection), GRANTS.c.id > after_id, GRANTS.c.status == GrantStatus.ACTIVE.value)
            .where(PAIRS.c.wiped_at.is_(None), GRANTS.c.belongs_to.is_(None))
            .order_by(GRANTS.c.id)
            .limit(limit)
        )
        rows = connection.execute(page)
        return [ExportedGrant(row.reference, bool(row.under_way), current_pair(row)) for row in rows]

    @reads
    def of_other_apps(self, connection: Connection) -> dict[str, int]:
        """Return how many grants belong to other apps, by app; these grants are neither refreshed nor shown here."""
        counted = select(GRANTS.c.app_id, func.count().label("grants")).where(~is_of_app(connection))
        rows = connection.execute(counted.group_by(GRANTS.c.app_id).order_by(GRANTS.c.app_id))
        return {row.app_id: row.grants for row in rows}

    @writes
    def say_app(self, connection: Connection, limit: int = 500) -> int:
        """Write the store's app into grants that name no app; return how many there were."""
        unsaid = select(GRANTS.c.id).where(GRANTS.c.app_id == UNSAID).order_by(GRANTS.c.id).limit(limit)
        return connection.execute(
            update(GRANTS).where(GRANTS.c.id.in_(unsaid), GRANTS.c.app_id == UNSAID).values(app_id=self.app_id)
        ).rowcount

    @reads
    def attempts(self, connection: Connection, grant_id: int, limit: int = 50) -> list[AttemptView]:
        """Return a grant's attempts, newest first."""
        history = (
            select(ATTEMPTS)
            .where(ATTEMPTS.c.grant_id == grant_id)
            .order_by(ATTEMPTS.c.consent.desc(), ATTEMPTS.c.generation.desc())
            .limit(limit)
        )
        return [attempt_view(row) for row in connection.execute(history)]

    @writes
    def request_refresh(self, connection: Connection, creator_id: str) -> int:
        """Make a creator's grant due now and return its id.

        Raises:
            UnknownCreatorError, RevokedError: there is nothing to refresh.
            ReauthNeededError: TikTok refused the refresh token for good.
            PausedError: a person has paused it.
        """
        grant = _found(connection, creator_id)
        _refuse_ended(grant)
        _refuse_paused(grant)
        return _wish(connection, creator_id, next_refresh_at=now())

    @writes
    def request_refresh_of(self, connection: Connection, pair: CurrentPair | ServedPair) -> bool:
        """Make a healthy grant due now if this pair is still its current one.

        Returns:
            False if a newer pair has come, which needs no refresh, or if refreshes fail: the time of the next attempt
            is then a part of the verdict, and a read does not shorten it.
        """
        wished = connection.execute(
            update(GRANTS)
            .where(
                GRANTS.c.id == pair.grant_id,
                GRANTS.c.consent == pair.consent,
                GRANTS.c.pair_generation == pair.generation,
                GRANTS.c.next_refresh_at > now(),
                text(HEALTHY),
            )
            .values(next_refresh_at=now())
        )
        return wished.rowcount == 1

    @writes
    def request_pull(self, connection: Connection, creator_id: str) -> int:
        """Make an account-data pull for a creator due now, and return the grant's id.

        Raises:
            UnknownCreatorError, RevokedError: there is no token to pull with.
            ReauthNeededError: the access token has ended and no refresh will bring another.
            PausedError: a person has paused it.
        """
        grant, at = _found(connection, creator_id), connection.execute(select(now())).scalar_one()
        _refuse_revoked(grant)
        if grant.access_expires_at <= at:
            _refuse_ended(grant)
        _refuse_paused(grant)
        return _wish(connection, creator_id, next_pull_at=now())

    @writes
    def mark_revoked(self, connection: Connection, creator_id: str, *, wipe: bool = True) -> int:
        """End a grant on our side: it is no longer refreshed, pulled or served; one that ended before stays as it is.

        A pair that an attempt under way still brings is stored, and revoked at TikTok (`endings_due`).

        Args:
            connection: given by the decorator.
            creator_id: the creator.
            wipe: False to keep the pairs until TikTok has been told by one of them, and the lease of an attempt under
                way, so that its end can be waited for.

        Returns:
            The grant's id.

        Raises:
            UnknownCreatorError: no such creator.
        """
        grant = _found(connection, creator_id, lock=True)
        if grant.status != GrantStatus.REVOKED.value:
            end_here(connection, grant)
        if wipe:
            freed = {"lease_owner": None, "lease_until": None, "pull_lease_owner": None, "pull_lease_until": None}
            connection.execute(update(GRANTS).where(GRANTS.c.id == grant.id).values(ending_at=None, **freed))
            wipe_pairs(connection, PAIRS.c.grant_id == grant.id)
        return int(grant.id)


def wipe_pairs(connection: Connection, which: ColumnElement[bool]) -> int:
    """Empty the sealed columns of pairs; return how many were not empty."""
    wipe = update(PAIRS).where(which, PAIRS.c.wiped_at.is_(None))
    return connection.execute(wipe.values(sealed_access=None, sealed_refresh=None, wiped_at=now())).rowcount


def end_here(connection: Connection, grant: AnyRow) -> None:
    """Revoke a grant within a transaction: its end at TikTok is due, and one notice says that it ended."""
    connection.execute(
        update(GRANTS)
        .where(GRANTS.c.id == grant.id)
        .values(status=GrantStatus.REVOKED.value, next_pull_at=None, ending_at=now(), updated_at=now())
    )
    withdraw_requests(connection, [(grant.id, grant.consent, grant.pair_generation)])
    key, detail = f"{REVOKED}:{grant.id}:{grant.consent}", "the operator revoked the grant; its tokens are wiped"
    insert_notice(connection, key, REVOKED, detail, grant_id=grant.id)


# Made once: making them takes three times as long as running them, and readers run them a thousand times a second.
_WITH_PAIR: Final = GRANTS.outerjoin(PAIRS, is_current_pair() & PAIRS.c.wiped_at.is_(None))
_SERVED: Final = (
    select(*SERVED_PAIR)
    .select_from(_WITH_PAIR)
    .where(is_of_named_app(), GRANTS.c.creator_id == bindparam("of_creator"))
)
_SERVED_MANY: Final = (
    select(*SERVED_PAIR, GRANTS.c.reference)
    .select_from(_WITH_PAIR)
    .where(is_of_named_app(), GRANTS.c.creator_id.in_(bindparam("of_creators", expanding=True)))
)


def _found(connection: Connection, creator_id: str, *, lock: bool = False) -> AnyRow:
    query = select(*grant_columns(connection)).where(is_of_app(connection), GRANTS.c.creator_id == creator_id)
    row = connection.execute(query.with_for_update(key_share=True) if lock else query).first()
    if row is None:
        raise _unknown(creator_id)
    return row


def _unknown(creator_id: str) -> UnknownCreatorError:
    return UnknownCreatorError(f"there is no grant of creator {redact(creator_id)}")


def _lost(creator_id: str) -> LostError:
    return LostError(f"the pair of creator {redact(creator_id)} is not in the database")


def _refuse_revoked(grant: AnyRow) -> None:
    if grant.status == GrantStatus.REVOKED.value:
        raise RevokedError(
            f"the grant of creator {redact(grant.creator_id)} is revoked and its tokens are wiped; only a new "
            "authorization brings it back (`celery -A worker authorize url`)"
        )


def _refuse_ended(grant: AnyRow) -> None:
    _refuse_revoked(grant)
    if grant.status == GrantStatus.NEEDS_REAUTH.value:
        raise ReauthNeededError(
            f"TikTok refuses to refresh the grant of creator {redact(grant.creator_id)}, who has to authorize again "
            "(`celery -A worker authorize url`)"
        )


def _refuse_paused(grant: AnyRow) -> None:
    if grant.paused_since is not None:
        raise PausedError(f"the grant of creator {redact(grant.creator_id)} is {wording.paused(grant.paused_since)}")


def _wish(connection: Connection, creator_id: str, **values: Any) -> int:
    wished = connection.execute(
        update(GRANTS)
        .where(is_of_app(connection), GRANTS.c.creator_id == creator_id)
        .values(updated_at=now(), **values)
        .returning(GRANTS.c.id)
    ).one()
    return int(wished.id)
