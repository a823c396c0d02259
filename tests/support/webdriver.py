"""A real browser that tests drive: Chromium behind chromedriver, spoken to by plain HTTP as WebDriver says."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import requests

from tests.conftest import _wait_until, find_free_port
from tests.security.canary_pages import browser_program

SECONDS: Final = 60.0
ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"
"""The name of an element's id, which the specification fixes."""
FLAGS: Final = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync",
)  # fmt: skip


def driver_program() -> str | None:
    """Return a chromedriver of this machine, if there is a Chromium too."""
    return shutil.which("chromedriver") if browser_program() else None


class Browser:
    """One window of a browser with a fresh profile; a context that ends it.

    Args:
        scripts: False to run no script of a page.
    """

    def __init__(self, *, scripts: bool = True) -> None:
        program = driver_program()
        assert program is not None
        self._scripts = scripts
        port = find_free_port()
        self._driver = subprocess.Popen([program, f"--port={port}", "--silent"], stdout=subprocess.DEVNULL)
        self._url = f"http://127.0.0.1:{port}"
        self._session = ""

    def __enter__(self) -> Self:
        _wait_until(self._answers, SECONDS)
        options: dict[str, Any] = {"args": list(FLAGS), "binary": browser_program()}
        if not self._scripts:
            options["prefs"] = {"profile.managed_default_content_settings.javascript": 2}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{made['sessionId']}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._ask("DELETE", self._session)
        finally:
            self._driver.terminate()
            self._driver.wait(SECONDS)

    def open(self, url: str) -> None:
        """Open a page."""
        self._ask("POST", f"{self._session}/url", {"url": url})

    @property
    def url(self) -> str:
        """The address that the browser is at."""
        return str(self._ask("GET", f"{self._session}/url"))

    def arrives(self, url: str) -> None:
        """Wait until the browser is at an address; a click returns before the page that it leads to is there."""
        _wait_until(lambda: self.url == url, SECONDS)

    def reads(self, text: str) -> None:
        """Wait until the page says this."""
        _wait_until(lambda: text in self._text_now(), SECONDS)

    def text(self, selector: str = "body") -> str:
        """Return what can be read in an element."""
        return str(self._ask("GET", f"{self._element(selector)}/text"))

    def attribute(self, selector: str, name: str) -> str:
        """Return a property of an element, such as a field's value."""
        return str(self._ask("GET", f"{self._element(selector)}/property/{name}"))

    def click(self, selector: str) -> None:
        """Click an element."""
        self._ask("POST", f"{self._element(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        """Type into a field."""
        self._ask("POST", f"{self._element(selector)}/value", {"text": text})

    def run(self, script: str) -> Any:
        """Run a script of the test's, which a page's policy does not stop."""
        return self._ask("POST", f"{self._session}/execute/sync", {"script": script, "args": []})

    def later(self, script: str) -> Any:
        """Run a script of the test's that calls its last argument with the result."""
        return self._ask("POST", f"{self._session}/execute/async", {"script": script, "args": []})

    def shape(self, width: int, height: int, *, dark: bool = False) -> None:
        """Make the page so large, and light or dark."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._tell("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._tell("Emulation.setEmulatedMedia", {"features": [scheme]})

    def picture(self, path: Path) -> None:
        """Put a picture of what can be seen into a file."""
        path.write_bytes(base64.b64decode(self._ask("GET", f"{self._session}/screenshot")))

    def complaints(self) -> list[str]:
        """Return what the browser's console has of refused sources and errors."""
        return [str(line["message"]) for line in self._ask("POST", f"{self._session}/se/log", {"type": "browser"})]

    def _tell(self, command: str, parameters: dict[str, Any]) -> None:
        self._ask("POST", f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _element(self, selector: str) -> str:
        found = self._ask("POST", f"{self._session}/element", {"using": "css selector", "value": selector})
        return f"{self._session}/element/{found[ELEMENT]}"

    def _text_now(self) -> str:
        try:
            return self.text()
        except AssertionError:  # the element went away with its page
            return ""

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self._url}/status", timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    def _ask(self, method: str, path: str, document: dict[str, Any] | None = None) -> Any:
        answer = requests.request(method, self._url + path, json=document, timeout=SECONDS)
        value = answer.json()["value"]
        assert answer.status_code == 200, f"{path}: {value.get('message', value)}"
        return value
