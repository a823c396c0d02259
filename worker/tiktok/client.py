"""TikTok's API for Business as this app uses it: consent, exchange, refresh, revoke, and the reads of an account."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import quote, urlencode

from worker.addresses import bad_url
from worker.egress import Egress
from worker.errors import ConfigurationError, GiveUpError, TikTokError, UsageError
from worker.tiktok.answers import open_envelope, read_answer, read_token_info
from worker.tiktok.codes import (
    DEAD_TOKEN_CODES,
    EXCHANGE_CALL,
    REFRESH_CALL,
    REVOKE_CALL,
    TOKEN_INFO_CALL,
)
from worker.tiktok.parsing import READ_LIMIT_BYTES
from worker.tiktok.transport import Observe, Request, Transport
from worker.tiktok.values import RawAnswer, ReadAnswer, TokenInfo
from worker.vault.token import Token

TOKEN_LIMIT_BYTES: Final = 65536


def _no_failpoint(_name: str) -> None:
    return


def _observe_nothing(_path: str, _seconds: float, _told: object) -> None:
    return


class TikTok:
    """The client; one instance serves all threads of a process and opens nothing before its first call.

    It retries nothing and follows no redirect: a request is sent at most once. Token calls come in two steps, so that
    the answer can be journaled between receiving and reading.

    Args:
        app_id: the app's id (`client_key`, `client_id` and `app_id` are all this one).
        app_secret: the app's secret.
        redirect_uri: the registered address, byte for byte.
        base_url: address of the API, without the version; https, or http on this machine's loopback.
        authorize_url: where creators give consent.
        connect_seconds: longest time to connect, and again for the TLS handshake.
        deadline_seconds: longest time of a whole call.
        failpoint: called with "post_send" and "post_recv" in `send_exchange` and `send_refresh`.
        observe: takes the path of each call that was sent, the seconds until its answer's end or its failure, and what
            reads the answer for a trace.
        egress: the route to TikTok; by default direct and with the usual authorities.

    Raises:
        ConfigurationError: tokens must not be sent to this address, or the durations are impossible.
    """

    def __init__(
        self,
        *,
        app_id: str,
        app_secret: Token,
        redirect_uri: str,
        base_url: str,
        authorize_url: str,
        connect_seconds: float = 5,
        deadline_seconds: float = 45,
        failpoint: Callable[[str], object] = _no_failpoint,
        observe: Observe = _observe_nothing,
        egress: Egress | None = None,
    ) -> None:
        if not 0 < connect_seconds <= deadline_seconds:
            raise ConfigurationError("0 < connect_seconds <= deadline_seconds must hold")
        for name, url in (("the authorize address", authorize_url), ("TikTok's base address", base_url)):
            if problem := bad_url(name, url, bare=True):
                raise ConfigurationError(problem)
        self._app_id = app_id
        self._app_secret = app_secret
        self._redirect_uri = redirect_uri
        self._authorize_url = authorize_url
        self._failpoint = failpoint
        self._transport = Transport(
            base_url=base_url.rstrip("/"),
            connect_seconds=connect_seconds,
            deadline_seconds=deadline_seconds,
            observe=observe,
            egress=egress,
        )

    def authorization_url(self, *, state: str, scopes: Sequence[str]) -> str:
        """Return the link at which a creator gives consent.

        The redirect address is sent byte for byte as given: TikTok compares it with the registered one.

        Args:
            state: an unguessable text that the redirect brings back.
            scopes: the scopes to ask for; one unknown scope makes TikTok refuse the whole link.

        Raises:
            UsageError: there is no state or no scope.
        """
        if not state:
            raise UsageError("an authorization link needs a state")
        if not scopes:
            raise UsageError("an authorization link needs at least one scope")
        query = {
            "client_key": self._app_id,
            "scope": ",".join(scopes),
            "response_type": "code",
            "redirect_uri": self._redirect_uri,
            "state": state,
        }
        return f"{self._authorize_url}?{urlencode(query, quote_via=quote, safe='')}"

    def send_exchange(self, code: Token) -> RawAnswer:
        """Exchange an authorization code (official doc 1833997638479041) and return the answer unread.

        Args:
            code: the code of the redirect, decoded; it works once and for about ten minutes.

        Raises:
            NotSentError: the code was not sent and still works.
        """
        content = {"grant_type": "authorization_code", "auth_code": code.reveal(), "redirect_uri": self._redirect_uri}
        return self._send_token_call(EXCHANGE_CALL, content, self._app_secret, code)

    def send_refresh(self, refresh_token: Token, *, app_secret: Token | None = None) -> RawAnswer:
        """Send a refresh and return the answer unread; the caller must store it before anything else.

        Args:
            refresh_token: the grant's refresh token; it may be dead once this is sent.
            app_secret: the secret to use instead of the configured one, while the secret is being changed.

        Raises:
            NotSentError: the token was not sent and still works.
        """
        secret = self._app_secret if app_secret is None else app_secret  # a token has no truth value
        content = {"grant_type": "refresh_token", "refresh_token": refresh_token.reveal()}
        return self._send_token_call(REFRESH_CALL, content, secret, refresh_token)

    def revoke(self, access_token: Token) -> None:
        """End a grant on TikTok's side.

        TikTok does not document the answer to a second revoke, so a code for a dead token counts as done.

        Raises:
            NotSentError, InDoubtError, WaitError, BackOffError, StopEveryoneError: it is not known to be revoked.
        """
        content = {
            "client_id": self._app_id,
            "client_secret": self._app_secret.reveal(),
            "access_token": access_token.reveal(),
        }
        raw = self._transport.send(self._post(REVOKE_CALL, content, (self._app_secret, access_token)))
        try:
            open_envelope(raw)
        except TikTokError as error:
            if error.code not in DEAD_TOKEN_CODES:
                raise

    def token_info(self, access_token: Token) -> TokenInfo:
        """Look up the app, the creator and the scopes of an access token (official doc 1765927978092545).

        Raises:
            NotSentError, InDoubtError, WaitError, BackOffError, StopEveryoneError, RefreshFirstError, GiveUpError: see
                the error tree.
        """
        content = {"app_id": self._app_id, "access_token": access_token.reveal()}
        envelope = open_envelope(self._transport.send(self._post(TOKEN_INFO_CALL, content, (access_token,))))
        return read_token_info(envelope)

    def read(
        self, access_token: Token, call: str, creator_id: str, parameters: Mapping[str, str | int | list[str]]
    ) -> ReadAnswer:
        """Read a page of one creator's account data.

        Args:
            access_token: a valid access token of this creator.
            call: the path, such as `business/get/`.
            creator_id: the creator; TikTok calls it `business_id` here.
            parameters: the query; lists are sent as JSON. One of the `fields` without its scope fails the whole read.

        Raises:
            NotSentError, InDoubtError, WaitError, BackOffError, StopEveryoneError, RefreshFirstError: see the error
                tree.
            GiveUpError: TikTok refuses this read; or there is no field to read, or the token does not fit into a
                header, and then nothing was sent.
        """
        text = access_token.reveal()
        if not parameters.get("fields", True) or not text.isascii() or not text.isprintable() or text != text.strip():
            raise GiveUpError("no field to ask for, or a token that no header can hold", call=call)
        query = {"business_id": creator_id} | {
            name: json.dumps(value, separators=(",", ":")) if isinstance(value, list) else str(value)
            for name, value in parameters.items()
        }
        request = Request(
            "GET",
            call,
            READ_LIMIT_BYTES,
            query=query,
            access_token=access_token,
            secrets=(access_token, self._app_secret),
            compressed=True,
        )
        return read_answer(self._transport.send(request))

    def close(self) -> None:
        """Close every connection; calls made later raise NotSentError."""
        self._transport.close()

    def _send_token_call(self, path: str, content: dict[str, str], app_secret: Token, secret: Token) -> RawAnswer:
        whole = {"client_id": self._app_id, "client_secret": app_secret.reveal(), **content}
        return self._transport.send(self._post(path, whole, (app_secret, secret), self._failpoint))

    def _post(
        self,
        path: str,
        content: dict[str, str],
        secrets: tuple[Token, ...],
        failpoint: Callable[[str], object] = _no_failpoint,
    ) -> Request:
        return Request("POST", path, TOKEN_LIMIT_BYTES, content=content, secrets=secrets, failpoint=failpoint)
