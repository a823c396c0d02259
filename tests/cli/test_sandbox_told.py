"""What `sandbox serve` prints when it is ready."""

from __future__ import annotations

import re

from worker.cli.sandbox import _how_to_use
from worker.sandbox.options import SandboxOptions
from worker.sandbox.server import Address


def test_to_use_the_sandbox_its_app_secret_is_printed_too() -> None:
    """The lines can be pasted into a `.env`: address, app, secret and redirect address."""
    options = SandboxOptions.from_json({"app_id": "my-app", "app_secret": "my-secret"})

    said = dict(re.findall(r"^  (EVERTOKEN_\w+)=(.*)$", _how_to_use(Address("127.0.0.1", 8599), options), re.MULTILINE))

    assert said["EVERTOKEN_TIKTOK_APP_ID"] == "my-app"
    assert said["EVERTOKEN_TIKTOK_APP_SECRET"] == "my-secret"
    assert said["EVERTOKEN_TIKTOK_REDIRECT_URI"] == options.redirect_uri
    assert said["EVERTOKEN_TIKTOK_BASE_URL"].startswith("http://127.0.0.1:8599/")
