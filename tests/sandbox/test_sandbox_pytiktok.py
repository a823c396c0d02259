"""A client written by others works against the sandbox with nothing changed but its base address."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests
from pytiktok import BusinessAccountApi
from pytiktok.error import PyTiktokError

from worker.sandbox.account_calls import FIELD_SCOPES, VIDEO_SCOPES
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


def test_all_read_methods_bring_data(start: Callable[..., RunningSandbox]) -> None:
    """Each of python-tiktok's ten methods that read an account answers, with every field that its page names."""
    scopes = sorted({*FIELD_SCOPES.values(), *VIDEO_SCOPES.values(), "video.publish", "comment.list"})
    sandbox = start(scopes=scopes)
    sandbox.set_account("reader", comments=200, missing=0)
    token = sandbox.grants(creators=["reader"])[0]["access_token"]
    api = BusinessAccountApi(app_id="sandbox-app", access_token=token, base_url=sandbox.url, timeout=10)
    today = datetime.now(UTC).date()
    with api.session:
        info = api.get_token_info(access_token=token)
        account = api.get_account_data(
            business_id="reader",
            start_date=str(today - timedelta(days=60)),
            end_date=str(today - timedelta(days=1)),
            fields=list(FIELD_SCOPES),
        ).data
        first = api.get_account_videos(business_id="reader", fields=list(VIDEO_SCOPES), max_count=20).data
        second = api.get_account_videos(business_id="reader", cursor=first.cursor).data
        old = first.videos[-1].item_id
        one = api.get_account_videos(business_id="reader", filters={"video_ids": [old]}).data
        comments = api.get_video_comments(
            business_id="reader",
            video_id=old,
            include_replies=True,
            sort_field="likes",
            sort_order="desc",
            max_count=30,
        ).data
        replied = next(each for each in comments.comments if each.replies and each.status == "PUBLIC")
        replies = api.get_comment_replies(business_id="reader", video_id=old, comment_id=replied.comment_id).data
        privacy = api.get_account_post_privacy(business_id="reader").data
        published = api.get_publish_status(business_id="reader", publish_id=f"v_pub~{old}").data
        hashtags = api.get_hashtag_suggestions(business_id="reader", keyword="shoe").data
        properties = api.get_url_property_list(app_id="sandbox-app").data
        benchmark = api.get_business_category_benchmarks(business_id="reader", business_category="PETS").data

    assert info.creator_id == "reader"
    assert all(getattr(account, name) is not None for name in ("username", "followers_count", "audience_cities"))
    assert len(account.metrics) >= 55
    assert all(value is not None for value in vars(account.metrics[0]).values())
    assert (len(first.videos) >= 15, first.has_more, len(second.videos) > 5) == (True, True, True)
    assert any(all(value is not None for value in vars(each).values()) for each in first.videos)
    assert [each.item_id for each in one.videos] == [old]
    assert replied.reply_list
    assert len(replies.comments) == replied.replies
    assert privacy.max_video_post_duration_sec == 600
    assert (published.status, published.post_ids) == ("PUBLISH_COMPLETE", [old])
    assert len(hashtags.suggestions) == 10
    assert properties.url_property_info_list[0].url == "media.example"
    assert all(value is not None for value in vars(benchmark).values())
