"""A person at the desk's pages, without a browser: follows links, fills in forms, keeps cookies."""

from __future__ import annotations

import html
import re
from typing import Any
from urllib.parse import urlsplit

import requests

from tests.support.desk import PASSWORD, RunningDesk


class Person:
    """Somebody who looks at a desk's pages."""

    def __init__(self, desk: RunningDesk) -> None:
        self.desk = desk
        self.session = requests.Session()

    def get(self, path: str, **options: Any) -> requests.Response:
        """Open a page; redirects are not followed unless asked."""
        return self.session.get(self.desk.url + path, timeout=60, **{"allow_redirects": False} | options)

    def post(self, path: str, data: dict[str, str] | None = None, **options: Any) -> requests.Response:
        """Send a form."""
        return self.session.post(
            self.desk.url + path, data=data or {}, timeout=60, **{"allow_redirects": False} | options
        )

    def log_in(self, password: str = PASSWORD, *, to: str = "/ops") -> requests.Response:
        """Log in as an operator."""
        return self.post("/ops/login", {"password": password, "next": to})

    def form_key(self, path: str = "/ops/invite") -> str:
        """Return what the forms of a page bear."""
        found = re.search(r'name="form_key" value="([0-9a-f]{64})"', self.get(path).text)
        assert found is not None
        return found[1]

    def invite(self, **fields: str) -> str:
        """Make an invitation on the operators' page; return the path of its link."""
        answer = self.post("/ops/invite", {"form_key": self.form_key(), "days": "7"} | fields)
        assert answer.status_code == 200, answer.text
        found = re.search(r'readonly value="([^"]+)"', answer.text)
        assert found is not None
        return urlsplit(html.unescape(found[1])).path

    def tiktok(self, page: requests.Response, creator: str, **options: str) -> str:
        """Follow an invitation to the sandbox's page as a creator; return the path that TikTok sends the browser to."""
        found = re.search(r'class="button" href="([^"]+)"', page.text)
        assert found is not None, page.text
        url = html.unescape(found[1])
        sent = requests.get(url, params={"sandbox_creator": creator} | options, allow_redirects=False, timeout=30)
        assert sent.status_code == 302, sent.text
        return f"/callback?{urlsplit(sent.headers['Location']).query}"
