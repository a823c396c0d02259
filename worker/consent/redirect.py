"""Reading a redirect from TikTok's consent page: a code and a state, or one of the page's own refusals.

A person pastes the address that the browser ended at. Its query is percent-decoded here, exactly once: TikTok's
codes hold `%2A` and `%21`, and TikTok expects the decoded text back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from worker.errors import UsageError

LONGEST: Final = 16_384
"""Characters of a pasted text; browsers cut addresses long before."""
CODE_NAMES: Final = ("code", "auth_code")
"""The account flow names its code `code`, the advertiser flow `auth_code`; the first that is present counts."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_HINT: Final = "paste the whole address that the browser ended at after the creator agreed"
_ENCODED_AGAIN: Final = (
    "the text was percent-encoded a second time, as some mail and chat programs do, and TikTok would refuse its code; "
    "nothing was sent, so copy the address from the browser's address bar"
)

_REFUSALS: Final = {
    "access_denied": "the creator did not agree; send the link again if that was a mistake",
    "invalid_scope": (
        "a scope in the link is unknown or not approved for this app (TikTok does not say which); compare "
        "EVERTOKEN_TIKTOK_SCOPES with the scopes in TikTok's portal"
    ),
    "unauthorized_client": (
        "the app may not use TikTok Accounts: its permission is missing or not approved yet; check the app in "
        "TikTok's portal, since a creator cannot change this"
    ),
    "invalid_client": "TikTok does not know the app id in the link; compare EVERTOKEN_TIKTOK_APP_ID with the portal",
    "invalid_request": "TikTok found the link malformed; make a new one and compare the settings with the portal",
    "redirect_uri_mismatch": (
        "EVERTOKEN_TIKTOK_REDIRECT_URI is not the address registered in TikTok's portal, byte for byte"
    ),
    "server_error": "TikTok had trouble of its own; open the link again in a while",
    "temporarily_unavailable": "TikTok had trouble of its own; open the link again in a while",
    "10003": "TikTok's page says that the app or its redirect address is not as registered; compare with the portal",
}


class ConsentRefusedError(UsageError):
    """TikTok's page sent the creator back without a code.

    Attributes:
        error: TikTok's word for why, such as `access_denied`.
    """

    def __init__(self, text: str, error: str) -> None:
        super().__init__(text)
        self.error = error


@dataclass(frozen=True)
class Redirect:
    """The content of an accepted redirect.

    Attributes:
        code: the authorization code, decoded once; a secret until it is spent.
        state: the state as it came back; empty if the redirect has none.
    """

    code: str = field(repr=False)
    state: str = field(repr=False)


def read_redirect(text: str, *, expected: str) -> Redirect:
    """Read a pasted redirect: a whole address, or only its query.

    Args:
        text: what was pasted.
        expected: the address that is registered for the app; a whole address must equal it, up to its query.

    Raises:
        ConsentRefusedError: TikTok's page refused.
        UsageError: its text says what is wrong; it never holds the code.
    """
    values = _query_of(text)
    _explain_refusal(values)
    _refuse_second_encoding(values)
    for name in CODE_NAMES:
        if values.get(name):
            _refuse_other_address(text, expected)
            return Redirect(code=values[name], state=values.get("state", ""))
    if "client_key" in values:
        raise UsageError(f"this is the consent link itself, not the redirect; {_HINT}")
    raise UsageError(f"the text holds no code; {_HINT}")


def _query_of(text: str) -> dict[str, str]:
    pasted = text.strip().strip("'\"<>")
    if not pasted:
        raise UsageError(f"nothing was pasted; {_HINT}")
    if len(pasted) > LONGEST:
        raise UsageError(f"the text is longer than {LONGEST} characters, so it is no redirect; {_HINT}")
    if re.search(r"\s", pasted):
        raise UsageError(f"the text has a space or a line break in it; {_HINT}, in one piece")
    query = pasted.partition("#")[0]
    if "?" in query:
        query = query.partition("?")[2]
    values: dict[str, str] = {}
    for part in query.split("&"):
        name, _, raw = part.partition("=")
        # Plain unquote, not the decoding of forms: a "+" in a code is a plus, never a space.
        try:
            value = unquote(raw, errors="strict")
        except UnicodeDecodeError:
            raise UsageError(f"a percent sign in the text does not decode; {_HINT}") from None
        if values.setdefault(name, value) != value:
            raise UsageError(f"the text holds {_shown(name)} twice, with different values; {_HINT}")
    return values


def _explain_refusal(values: dict[str, str]) -> None:
    error = values.get("error") or values.get("errCode") or values.get("error_code") or ""
    if not error or error == "0":
        return
    reason = _REFUSALS.get(error, "this refusal is unknown here; TikTok's portal may have more")
    if error == "unauthorized_client" and values.get("error_type") not in {None, "", "client_key"}:
        reason += f" (error type {_shown(values['error_type'])})"
    log_id = values.get("log_id") or values.get("logid")
    traced = f"; log id for TikTok's support: {_shown(log_id)}" if log_id else ""
    raise ConsentRefusedError(f"TikTok's page refused ({_shown(error)}): {reason}{traced}", error)


def _refuse_other_address(text: str, expected: str) -> None:
    """Compare scheme, host and path: TikTok refuses a code that was made for another address, and the code is spent."""
    pasted, registered = (urlsplit(address.strip().strip("'\"<>")) for address in (text, expected))
    if not pasted.scheme or not pasted.netloc:
        return
    for name, given, wanted in (
        ("scheme", pasted.scheme.lower(), registered.scheme.lower()),
        ("host", pasted.netloc.rpartition("@")[2].lower(), registered.netloc.lower()),
        ("path", pasted.path or "/", registered.path or "/"),
    ):
        if given != wanted:
            raise UsageError(
                f"the {name} of the pasted address is not that of EVERTOKEN_TIKTOK_REDIRECT_URI, so it did not come "
                f"from a link of this app; nothing was sent. {_HINT.capitalize()}"
            )


def _refuse_second_encoding(values: dict[str, str]) -> None:
    """Look where the signs are certain: in commas of scopes, or an address without a query; a code may hold any."""
    whole = next(iter(values)).lower()
    if "%2c" in values.get("scopes", "").lower() or (whole.startswith(("http%3a", "https%3a")) and "%3f" in whole):
        raise UsageError(_ENCODED_AGAIN)


def _shown(value: str) -> str:
    """Return a short plain value unchanged; anything else may be secret and is not shown."""
    return value if _PLAIN.fullmatch(value) else "a value that is not shown"
