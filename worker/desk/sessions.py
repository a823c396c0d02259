"""Who an operator is: by a password and a signed cookie, or by the header of a trusted proxy; and that forms are ours.

A session is made by the desk when somebody logs in, never taken from a browser, so none can be planted. Its cookie
holds an instant, random bytes and a signature. A form bears a signature of the session that it was shown in.
"""

from __future__ import annotations

import hmac
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from typing import Final

from starlette.responses import Response

from worker.desk.guard import Addresses
from worker.desk.guesses import Guesses
from worker.desk.web import Asked, ProblemError
from worker.settings import Settings
from worker.telemetry import Fact, Hook

SESSION_SECONDS: Final = 12 * 3600
WRONG_PASSWORDS: Final = 5
"""Of one address in a minute."""
LOGIN: Final = "/ops/login"
FORM_FIELD: Final = "form_key"
OWN_PATH: Final = re.compile(r"/ops(?:[/?][!-\[\]-~]*)?")
"""ASCII without blanks, control characters and backslashes, which browsers read as slashes."""
COOKIE: Final = re.compile(r"(\d{10})\.([A-Za-z0-9_-]{32})\.([0-9a-f]{64})")


@dataclass(frozen=True)
class Operator:
    """Who looks at a page.

    Attributes:
        name: for people.
        form_key: what forms of this operator bear.
        logs_out: True if the desk itself has logged the operator in.
    """

    name: str
    form_key: str
    logs_out: bool


class Sessions:
    """Finds out who an operator is.

    Args:
        settings: password, secret and proxies.
        origin: scheme, host and port by which people reach the desk.
        addresses: finds out where requests came from.
        hook: where facts go.
        wall_clock: seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        origin: str,
        addresses: Addresses,
        hook: Hook,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        secret = settings.desk_secret.reveal() if settings.desk_secret else secrets.token_hex()
        password = settings.desk_password.reveal() if settings.desk_password else ""
        # A new password ends the sessions of the old one.
        self._secret = hmac.digest(secret.encode(), password.encode(), "sha256")
        self._password = settings.desk_password
        self._header = settings.desk_operator_header
        self._operators = frozenset(settings.desk_operators)
        self._origin = origin
        self._addresses = addresses
        self._hook = hook
        self._wall_clock = wall_clock
        self._guesses = Guesses(WRONG_PASSWORDS)
        self._lock = threading.Lock()
        self._left: dict[str, float] = {}
        self._over_tls = origin.startswith("https:")
        self._cookie = "__Host-evertoken" if self._over_tls else "evertoken-desk"

    def operator(self, asked: Asked) -> Operator | None:
        """Return who asks; None if that is nobody.

        Raises:
            ProblemError: a proxy names somebody who is no operator.
        """
        if self._header is not None:
            return self._named_by_proxy(asked, self._header)
        session = self._session(asked)
        return None if session is None else Operator("operator", self._sign(f"form:{session}"), logs_out=True)

    def log_in(self, asked: Asked, password: str) -> Response | None:
        """Put a new session into the answer if the password is right; return None if it is wrong.

        Raises:
            ProblemError: this address was wrong too often, or the desk has no password.
        """
        self.refuse_foreign(asked)
        if self._password is None or self._header is not None:
            raise ProblemError(404, "unknown-address", "a proxy logs operators in here, not a password")
        wait = self._guesses.wait(asked.address)
        if wait:
            raise ProblemError(
                429,
                "guessing",
                f"too many wrong passwords came from here; try again in {wait} s",
                headers={"Retry-After": str(wait)},
            )
        given, right = (
            sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (password, self._password.reveal())
        )
        if not hmac.compare_digest(given, right):
            last = self._guesses.wrong(asked.address)
            self._hook(
                Fact(
                    "desk.login_failed", {"address": asked.address, "locked": last}, level="warning" if last else "info"
                )
            )
            return None
        self._guesses.right(asked.address)
        self._hook(Fact("desk.logged_in", {"address": asked.address}))
        return self._with_session(Response())

    def log_out(self, asked: Asked, answer: Response) -> None:
        """End a session: its cookie is taken away, and this process takes it no more."""
        now = self._wall_clock()
        with self._lock:
            self._left = {each: until for each, until in self._left.items() if until > now}
            session = self._session(asked)
            if session is not None:
                self._left[session] = now + SESSION_SECONDS
        answer.delete_cookie(self._cookie, secure=self._over_tls, httponly=True, samesite="lax")

    def refuse_foreign(self, asked: Asked) -> None:
        """Refuse a form that another site has sent.

        Raises:
            ProblemError: the browser says so.
        """
        headers = asked.request.headers
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        ours = {self._origin, f"{asked.request.url.scheme}://{headers.get('host', '')}"}
        if (origin is not None and origin not in ours) or site not in {None, "same-origin", "none"}:
            raise ProblemError(403, "foreign-form", "the form was sent from another site")

    def refuse_forged(self, asked: Asked, operator: Operator, form_key: str) -> None:
        """Refuse a form that the operator's own page did not hold.

        Raises:
            ProblemError: another site sent it, or it does not bear the operator's key.
        """
        self.refuse_foreign(asked)
        if not hmac.compare_digest(form_key.encode("utf-8", "surrogatepass"), operator.form_key.encode()):
            raise ProblemError(403, "forged-form", "the form is not of this session; load the page again")

    def _named_by_proxy(self, asked: Asked, header: str) -> Operator | None:
        if not self._addresses.is_proxy(self._addresses.peer(asked.request)):
            return None
        names = asked.request.headers.getlist(header)
        if len(names) != 1 or not names[0]:
            return None
        if names[0] not in self._operators:
            raise ProblemError(403, "no-operator", "you are logged in, and are no operator of this desk")
        return Operator(names[0], self._sign(f"form:proxy:{names[0]}"), logs_out=False)

    def _session(self, asked: Asked) -> str | None:
        """Return the session of a request whose cookie we made, that has not ended and was not left."""
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(asked.request.headers.get("cookie", ""))
        except CookieError:
            return None
        parts = COOKIE.fullmatch(cookies[self._cookie].value) if self._cookie in cookies else None
        if parts is None:
            return None
        ends, session = int(parts[1]), f"{parts[1]}.{parts[2]}"
        signed = hmac.compare_digest(parts[3], self._sign(f"session:{session}"))
        return session if signed and self._wall_clock() < ends and session not in self._left else None

    def _with_session(self, answer: Response) -> Response:
        session = f"{int(self._wall_clock() + SESSION_SECONDS)}.{secrets.token_urlsafe(24)}"
        answer.set_cookie(
            self._cookie,
            f"{session}.{self._sign(f'session:{session}')}",
            max_age=SESSION_SECONDS,
            secure=self._over_tls,
            httponly=True,
            samesite="lax",
        )
        return answer

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), sha256).hexdigest()


def own_path(text: str, *, otherwise: str) -> str:
    """Return a path of the operators' pages as it was given, or another if it is none: nobody is led elsewhere."""
    return text if OWN_PATH.fullmatch(text) else otherwise
