"""A client written by others works against the sandbox with nothing changed but its base address."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests
from pytiktok import BusinessAccountApi
from pytiktok.error import PyTiktokError

from worker.sandbox.process import RunningSandbox


def test_authorization_refresh_and_account_data(start: Callable[..., RunningSandbox]) -> None:
    """The documented flow of python-tiktok: consent link, code, token, refresh, token info, account data, revoke."""
    sandbox = start()
    redirect_uri = sandbox.options.redirect_uri
    api = BusinessAccountApi(
        app_id="sandbox-app",
        app_secret="sandbox-secret",
        base_url=sandbox.url,
        oauth_redirect_uri=redirect_uri,
        timeout=10,
    )
    asked = {
        "client_key": "sandbox-app",
        "scope": "user.info.basic,user.info.stats,user.insights",
        "response_type": "code",
        "redirect_uri": redirect_uri,
        "state": "abc",
    }
    with api.session:
        page = requests.get(f"{sandbox.authorize_url}?{urlencode(asked)}", allow_redirects=False, timeout=10)
        code = parse_qs(urlsplit(page.headers["Location"]).query)["code"][0]

        first = api.generate_access_token(code=code)
        second = api.refresh_access_token(refresh_token=first.refresh_token)
        info = api.get_token_info(access_token=second.access_token)
        account = api.get_account_data(
            business_id=second.open_id, fields=["display_name", "followers_count", "audience_ages", "video_views"]
        )
        api.revoke_access_token(access_token=second.access_token)

        assert (first.expires_in, first.refresh_token_expires_in, first.token_type) == (86_400, 31_536_000, "Bearer")
        assert second.refresh_token != first.refresh_token
        assert set(info.scope.split(",")) == set(first.scope.split(",")) == set(asked["scope"].split(","))
        assert (info.app_id, info.creator_id) == ("sandbox-app", first.open_id)
        assert account.code == 0
        assert account.data.followers_count > 0
        assert account.data.audience_ages[0].percentage > 0
        assert account.data.metrics[0].video_views is not None
        with pytest.raises(PyTiktokError) as refused:
            api.refresh_access_token(refresh_token=second.refresh_token)
        assert refused.value.args[0]["code"] == 40107
