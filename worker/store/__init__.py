"""The store: the only room that speaks SQL; each public method is one transaction.

`open_store` gives the one face, `Store`. Everything it takes and gives is a frozen value exported here.
"""

from worker.store.clock import whole_milliseconds
from worker.store.fleet import LoadSlice
from worker.store.store import Store, open_store
from worker.store.values import (
    AttemptView,
    BrakeState,
    BroughtPair,
    Claim,
    Claimable,
    ConsentLink,
    ConsentResult,
    CurrentPair,
    DueGrant,
    FleetStatus,
    GrantCondition,
    GrantStatus,
    GrantView,
    Likeness,
    NewConsent,
    NewPair,
    NoticeView,
    PairVersion,
    PullClaim,
    Saved,
    SchemaFit,
    SchemaState,
    SnapshotView,
    StaleAttempt,
    StoredPair,
    WorkerView,
)

__all__ = [
    "AttemptView",
    "BrakeState",
    "BroughtPair",
    "Claim",
    "Claimable",
    "ConsentLink",
    "ConsentResult",
    "CurrentPair",
    "DueGrant",
    "FleetStatus",
    "GrantCondition",
    "GrantStatus",
    "GrantView",
    "Likeness",
    "LoadSlice",
    "NewConsent",
    "NewPair",
    "NoticeView",
    "PairVersion",
    "PullClaim",
    "Saved",
    "SchemaFit",
    "SchemaState",
    "SnapshotView",
    "StaleAttempt",
    "Store",
    "StoredPair",
    "WorkerView",
    "open_store",
    "whole_milliseconds",
]
