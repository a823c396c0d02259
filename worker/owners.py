"""The owner of an imported pair, looked up at TikTok before the pair is used for the first time.

A file may name the wrong creator, and a refresh would find that out only by spending the one-time refresh token.
TikTok's `token_info` returns the owner and the scopes of an access token and spends nothing. Only imported pairs are
looked up, each until TikTok has answered once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from worker.errors import BackOffError, InDoubtError, NotSentError, TikTokError, WaitError, WrongOwnerError
from worker.ground import Ground
from worker.limiter import Lane
from worker.store import CurrentPair
from worker.telemetry import Fact, FactValue
from worker.tiktok import TOKEN_INFO_CALL, TokenInfo
from worker.vault import PairPlace

WRONG_OWNER: Final = "wrong_owner"
LONGEST_WAIT_SECONDS: Final = 5.0
"""How long to wait for a permit of the quota."""


class OwnerCheck:
    """Looks up the owners of imported pairs; each process has one instance, which many threads use."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def prove(self, creator_id: str, *, lane: Lane, insist: bool = True) -> CurrentPair:
        """Return a creator's current pair, confirmed by TikTok; a pair that needs no proof costs one read.

        TikTok cannot name the owner of an access token that has ended, and may refuse to. Then the pair may be used and
        stays unproven: a refresh stores nothing under a creator whose id is not in its answer.

        Args:
            creator_id: the creator under whose id the pair is stored.
            lane: the lane of the quota.
            insist: False to allow the use of the pair even if TikTok has trouble of its own.

        Raises:
            WrongOwnerError: the pair belongs to another creator; it is held, and one alarm is raised.
            NotFoundError: there is no pair.
            SealError: the pair does not open.
            WaitError: the quota is spent.
            NotSentError: TikTok has trouble that may pass and did not name the owner; nothing was spent.
            StoreUnavailableError: the database did not answer.
        """
        pair = self._ground.store.current_pair(creator_id)
        if pair.belongs_to is not None:
            self._hold(pair, pair.belongs_to)
            raise _wrong(pair, pair.belongs_to)
        if not pair.unproven:
            return pair
        place = PairPlace(creator_id, pair.consent, pair.generation)
        access = self._ground.sealer.open_access(pair.sealed, place)
        self._wait_for_permit(pair.grant_id, lane)
        try:
            info = self._ground.tiktok.token_info(access)
        except WaitError:
            raise
        except (NotSentError, InDoubtError, BackOffError) as error:
            if insist:
                text = "TikTok did not name the owner of the imported pair, so the refresh was not sent"
                raise NotSentError(text, call=error.call, code=error.code, request_id=error.request_id) from None
            return self._let_through(pair, error)
        except TikTokError as error:
            return self._let_through(pair, error)
        return self._judge(pair, info)

    def _judge(self, pair: CurrentPair, info: TokenInfo) -> CurrentPair:
        if info.creator_id != pair.creator_id:
            self._hold(pair, info.creator_id)
            key = f"wrong_owner:{pair.grant_id}:{pair.consent}.{pair.generation}"
            reason = str(_wrong(pair, info.creator_id))
            self._ground.store.raise_alarm(key, WRONG_OWNER, reason, grant_id=pair.grant_id)
            self._report(pair, "owner.wrong", level="error", belongs_to=info.creator_id)
            raise _wrong(pair, info.creator_id)
        scope = ",".join(info.scope) or pair.scope
        self._ground.store.confirm_owner(pair, scope=scope)
        self._report(pair, "owner.confirmed", scope=scope)
        return replace(pair, scope=scope, unproven=False)

    def _let_through(self, pair: CurrentPair, error: TikTokError) -> CurrentPair:
        self._report(pair, "owner.untold", level="warning", code=error.code, request_id=error.request_id)
        return pair

    def _hold(self, pair: CurrentPair, belongs_to: str) -> None:
        self._ground.store.hold_pair(pair.grant_id, pair.consent, pair.generation, belongs_to=belongs_to)

    def _wait_for_permit(self, grant_id: int, lane: Lane) -> None:
        wait = self._ground.limiter.admit(
            lane=lane, call=TOKEN_INFO_CALL, account=str(grant_id), patience_seconds=LONGEST_WAIT_SECONDS
        )
        if wait:
            text = "no permit to look up the owner of the imported pair"
            raise WaitError(text, call=TOKEN_INFO_CALL, scope="account", seconds=wait)

    def _report(self, pair: CurrentPair, name: str, *, level: str = "info", **fields: FactValue) -> None:
        ids: dict[str, FactValue] = {"grant_id": pair.grant_id, "creator_id": pair.creator_id}
        self._ground.hook(Fact(name, ids | fields, level=level))


def _wrong(pair: CurrentPair, belongs_to: str) -> WrongOwnerError:
    return WrongOwnerError(
        f"TikTok says that the pair imported for creator {pair.creator_id} belongs to creator {belongs_to}; it is not "
        "used. Import the pair of each under its own id"
    )
