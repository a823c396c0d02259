"""How a call ended, before faults and framing: TikTok's code, message and data.

Codes and their meaning follow TikTok's error appendix (official doc 1737172488964097).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from worker.sandbox.registry import IssuedPair

NO_PERMISSION: Final = 40_001
BAD_PARAMETER: Final = 40_002
WRONG_APP: Final = 40_101
ACCESS_EXPIRED: Final = 40_102
REFRESH_EXPIRED: Final = 40_103
ACCESS_MISSING: Final = 40_104
ACCESS_WRONG: Final = 40_105
BAD_GRANT_TYPE: Final = 40_108
DEAD_CODE: Final = 40_110
APP_BLOCKED: Final = 40_113
SCOPE_MISSING: Final = 40_130
NOT_WORKED: Final = -1
"""In the ledger: a fault answered and the call was not carried out."""


@dataclass(slots=True)
class Outcome:
    """How a call ended.

    Attributes:
        code: TikTok's application code.
        message: its text.
        data: the answer's data.
        pair: the pair that was issued, or repeated.
        again: True where the pair had been issued before.
    """

    code: int = 0
    message: str = "OK"
    data: dict[str, Any] = field(default_factory=dict, repr=False)
    pair: IssuedPair | None = None
    again: bool = False


class RefusedError(Exception):
    """The call is answered with an application error.

    Args:
        code: TikTok's code.
        message: TikTok's text.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.outcome = Outcome(code, message)
