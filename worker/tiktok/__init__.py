"""The client of TikTok's API for Business: one method for each call, answers as values, failures as typed errors."""

from worker.tiktok.answers import (
    ACCESS_LIFE_NAMES,
    CREATOR_NAMES,
    REFRESH_LIFE_NAMES,
    bears_refresh_token,
    read_or_salvage,
    read_token_answer,
    salvage,
)
from worker.tiktok.client import TikTok
from worker.tiktok.codes import (
    ACCOUNT_CALL,
    CALLS,
    DEAD_TOKEN_CODES,
    EXCHANGE_CALL,
    REFRESH_CALL,
    REVOKE_CALL,
    TOKEN_INFO_CALL,
)
from worker.tiktok.parsing import OddNumber
from worker.tiktok.values import RawAnswer, ReadAnswer, TokenAnswer, TokenInfo

__all__ = [
    "ACCESS_LIFE_NAMES",
    "ACCOUNT_CALL",
    "CALLS",
    "CREATOR_NAMES",
    "DEAD_TOKEN_CODES",
    "EXCHANGE_CALL",
    "REFRESH_CALL",
    "REFRESH_LIFE_NAMES",
    "REVOKE_CALL",
    "TOKEN_INFO_CALL",
    "OddNumber",
    "RawAnswer",
    "ReadAnswer",
    "TikTok",
    "TokenAnswer",
    "TokenInfo",
    "bears_refresh_token",
    "read_or_salvage",
    "read_token_answer",
    "salvage",
]
