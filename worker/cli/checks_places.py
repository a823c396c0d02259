"""What `doctor` looks at of the place we run in: the way out, and who else could read our secrets or our traffic."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from worker.cli.checks import Finding

if TYPE_CHECKING:
    from worker.services import Services

IGNORED_PROXIES: Final = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
IGNORED_AUTHORITIES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def place_checks(services: Services) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """Yield name and function of each check; nothing has run yet."""
    yield "egress", lambda: egress(services)


def egress(services: Services) -> Finding:
    """Say which way calls go out, and which variables for other programs change nothing of it."""
    settings, proxy = services.settings, services.egress.proxy
    way = "straight" if proxy is None else f"through the proxy {proxy.host}:{proxy.port}"
    trust = "the usual authorities" if settings.ca_file is None else f"the authorities in {settings.ca_file}"
    text = f"calls go out {way} and trust {trust}"
    ignored = [
        f"{name} is set and not read: set {setting} if it is meant for us"
        for names, setting, given in (
            (IGNORED_PROXIES, "EVERTOKEN_EGRESS_PROXY", settings.egress_proxy),
            (IGNORED_AUTHORITIES, "EVERTOKEN_CA_FILE", settings.ca_file),
        )
        if given is None
        for name in [next((name for name in names if os.environ.get(name)), None)]
        if name is not None
    ]
    return Finding("egress", "warn" if ignored else "ok", "; ".join([text, *ignored]))
