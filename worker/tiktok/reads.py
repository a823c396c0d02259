"""Makes values of what the reads brought."""

from __future__ import annotations

from worker.errors import InDoubtError
from worker.tiktok.answers import read_creator, read_scope
from worker.tiktok.codes import ACCOUNT_CALL, TOKEN_INFO_CALL
from worker.tiktok.envelope import Envelope
from worker.tiktok.values import AccountData, TokenInfo
from worker.tiktok.wording import fit_to_store


def read_token_info(envelope: Envelope) -> TokenInfo:
    """Return what TikTok says of an access token; it still names the creator `creator_id` here.

    Raises:
        InDoubtError: the answer lacks the app or the creator.
    """
    data = envelope.members.get("data")
    if not isinstance(data, dict):
        raise _unfit(envelope, TOKEN_INFO_CALL)
    app_id, creator_id = data.get("app_id"), read_creator(data, envelope.secrets)
    if creator_id is None or isinstance(app_id, bool) or not isinstance(app_id, str | int):
        raise _unfit(envelope, TOKEN_INFO_CALL)
    return TokenInfo(
        app_id=str(app_id), creator_id=creator_id, scope=read_scope(data.get("scope"), [], envelope.secrets) or ()
    )


def read_account_data(envelope: Envelope) -> AccountData:
    """Return the fields of one account as TikTok named them, without an echo of a secret.

    Raises:
        InDoubtError: the answer has no code, or no data.
    """
    data = envelope.members.get("data")
    if envelope.code is None or not isinstance(data, dict):
        raise _unfit(envelope, ACCOUNT_CALL)
    return AccountData(fit_to_store(data, envelope.secrets), envelope.request_id)


def _unfit(envelope: Envelope, call: str) -> InDoubtError:
    return InDoubtError(
        f"{call} was answered without what was asked for", call=call, code=envelope.code, request_id=envelope.request_id
    )
