"""The ledger: one JSON line per pair issued or refused, written before the answer leaves; no token is in it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

FINGERPRINT_HEX_DIGITS: Final = 16
UNDELIVERED: Final = "undelivered"


def fingerprint(token_text: str) -> str:
    """Return the first 16 hex digits of SHA-256 of a token's text, as the ledger names tokens."""
    return hashlib.sha256(token_text.encode()).hexdigest()[:FINGERPRINT_HEX_DIGITS]


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One line of the ledger.

    Attributes:
        seq: number of the line, from 1.
        time: when it was written, in seconds since the epoch by the sandbox's clock.
        creator: the owner of the pair; None if the token or code that was sent is unknown.
        call: path of the call, such as `tt_user/oauth2/refresh_token/`, or `control/grants`.
        consent: number of the creator's consent, from 1; 0 if unknown.
        code: TikTok's application code; 0 means that the call succeeded.
        http_status: status of the answer.
        fp_old_refresh: fingerprint of the refresh token that was sent.
        fp_new_access: fingerprint of the access token issued.
        fp_new_refresh: fingerprint of the refresh token that is valid from now on.
        expires_in: real life of the access token in seconds, whatever the answer says.
        rotation: rotation mode at that time.
        answer: the planned fate of the answer: `sent`, `lost`, `cut`, `replaced` (by HTML, a 5xx ...),
            `altered` (creator id or a token changed or missing) or `undelivered` (the client had gone).
        salvageable: for `cut`: creator id and both tokens are whole in the bytes that leave.
        under_way: another refresh of this creator was being answered.
        reused_after: the `answer` of the line that used this refresh token up before; None for a first use.
        overlap: `under_way` or a used token.
        again: no new pair was issued; the known one was repeated within the grace.
        faults: kinds of the faults that hit the call.
    """

    seq: int
    time: float
    creator: str | None
    call: str
    consent: int = 0
    code: int = 0
    http_status: int = 200
    fp_old_refresh: str | None = None
    fp_new_access: str | None = None
    fp_new_refresh: str | None = None
    expires_in: int | None = None
    rotation: str = ""
    answer: str = "sent"
    salvageable: bool = False
    under_way: bool = False
    reused_after: str | None = None
    overlap: bool = False
    again: bool = False
    faults: tuple[str, ...] = ()


_NAMES: Final = frozenset(field.name for field in fields(LedgerEntry))


def read_ledger(path: str | os.PathLike[str]) -> list[LedgerEntry]:
    """Read a ledger, also while it is being written.

    A line that says that an answer could not be delivered changes the `answer` of the line that it refers to.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line other than an unfinished last one is no ledger line.
    """
    entries: dict[int, LedgerEntry] = {}
    text = Path(path).read_text(encoding="utf-8")
    for line in text[: text.rfind("\n") + 1].splitlines():
        found = json.loads(line)
        if "undelivered" in found:
            of = found["undelivered"]
            entries[of] = replace(entries[of], answer=UNDELIVERED)
            continue
        found["faults"] = tuple(found.get("faults", ()))
        entries[found["seq"]] = LedgerEntry(**{name: value for name, value in found.items() if name in _NAMES})
    return list(entries.values())


class LedgerWriter:
    """Appends each line with one write call, so that the line is in the file before its answer leaves.

    Args:
        path: a file that does not exist yet or is empty; None writes nothing and only counts.

    Raises:
        FileExistsError: the file already holds a ledger of another run.
        OSError: it cannot be opened.
    """

    def __init__(self, path: str | None) -> None:
        self._file: int | None = None
        self.lines = 0
        if path is None:
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if os.fstat(self._file).st_size:
            os.close(self._file)
            raise FileExistsError(f"{path} already holds the ledger of another run; name a new file")

    def write(self, drafts: Iterable[dict[str, Any]]) -> int:
        """Number the drafts, write them with one call and return the number of the last."""
        lines = []
        for draft in drafts:
            self.lines += 1
            lines.append(json.dumps({"seq": self.lines, **draft}, separators=(",", ":")))
        self._append(lines)
        return self.lines

    def undelivered(self, seq: int) -> None:
        """Note that the answer of line `seq` could not be delivered."""
        self._append([json.dumps({"undelivered": seq})])

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, lines: list[str]) -> None:
        if self._file is None or not lines:
            return
        left = memoryview(("\n".join(lines) + "\n").encode())
        while left:
            left = left[os.write(self._file, left) :]
