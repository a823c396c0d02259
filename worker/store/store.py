"""The store as one object with the methods of all its modules."""

from __future__ import annotations

from worker.store.account_reading import AccountReading
from worker.store.account_saving import AccountSaving
from worker.store.claims import Claims
from worker.store.consents import Consents
from worker.store.consumers import Consumers
from worker.store.contract import Contract
from worker.store.deliveries import Deliveries
from worker.store.due import DueScan
from worker.store.endings import Endings
from worker.store.figures import Figures
from worker.store.fleet import Fleet
from worker.store.forgetting import Tombstones
from worker.store.grants import Grants
from worker.store.keys import Keys
from worker.store.links import Links
from worker.store.notices import Notices
from worker.store.operations import Operations
from worker.store.owners import Owners
from worker.store.pauses import Pauses
from worker.store.pulls import Pulls
from worker.store.roles import Roles
from worker.store.saving import Saving
from worker.store.schema import Schema
from worker.store.upkeep import Upkeep
from worker.store.verdicts import Verdicts
from worker.store.wishes import Wishes


class Store(
    Schema,
    Roles,
    DueScan,
    Claims,
    Saving,
    Verdicts,
    Consents,
    Links,
    Grants,
    Owners,
    Pulls,
    AccountSaving,
    AccountReading,
    Fleet,
    Figures,
    Upkeep,
    Keys,
    Notices,
    Deliveries,
    Consumers,
    Operations,
    Contract,
    Endings,
    Tombstones,
    Pauses,
    Wishes,
):
    """The database of one deployment; safe to share between threads, and after a fork.

    Every public method is one transaction, which is committed when the method returns. Each raises
    StoreUnavailableError if the database did not answer, refused a statement or did not commit.
    """


def open_store(
    url: str, *, app_id: str = "", namespace: str | None = None, pool_size: int = 20, statement_seconds: float = 10
) -> Store:
    """Return a store; it connects at its first use.

    Args:
        url: `sqlite:///PATH` or `postgresql://user:password@host/name`; see `read_database`.
        app_id: TikTok's client id of the app whose grants are read; new grants belong to it.
        namespace: the schema of PostgreSQL that holds the tables if the address names none; None leaves it to the
            server's `search_path`.
        pool_size: most connections of one process; at least its number of threads.
        statement_seconds: longest time of one statement, and longest wait for SQLite's writer or for a connection.

    Raises:
        ConfigurationError: the address cannot be used; the text shows no secret of it.
    """
    return Store(url, app_id=app_id, namespace=namespace, pool_size=pool_size, statement_seconds=statement_seconds)
