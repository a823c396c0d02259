"""The desk through a real browser: a creator's way, the operators' pages, and how they look and read."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conftest import find_free_port
from tests.support.desk import PASSWORD, RunningDesk
from tests.support.receiver import SECRET, running_receiver
from tests.support.webdriver import Browser, driver_program
from tests.support.world import World
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import start_sandbox

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(400),
    pytest.mark.skipif(driver_program() is None, reason="Chromium with chromedriver is not installed"),
]
PHONE: Final = (390, 780)
DESKTOP: Final = (1100, 780)
PICTURES: Final = os.environ.get("DESK_PICTURES")
"""A folder for pictures, if somebody wants to look at them."""
AXE: Final = os.environ.get("DESK_AXE")
"""The file axe.min.js of axe-core, if somebody has it: then it looks at every page, too."""
FAULTS: Final = """
const faults = [];
const seen = (element) => element.getClientRects().length > 0;
if (!document.documentElement.lang) faults.push("no language");
if (document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
if (document.querySelectorAll("main").length !== 1) faults.push("not one main");
for (const field of document.querySelectorAll("input:not([type=hidden]), select"))
  if (!field.labels.length && !field.ariaLabel) faults.push("a field without a label: " + field.name);
for (const control of document.querySelectorAll("button, a[href]"))
  if (!(control.ariaLabel || control.textContent).trim()) faults.push("a control without a name");
if (document.documentElement.scrollWidth > innerWidth) faults.push("wider than the window");
const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
if (new Set(ids).size !== ids.length) faults.push("an id twice");
const part = (text) => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const behind = (element) => {
  for (; element; element = element.parentElement) {
    const colour = part(getComputedStyle(element).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !seen(element)) continue;
  const [a, b] = [light(part(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) faults.push("too little contrast: " + element.textContent.trim().slice(0, 40));
}
return faults;
"""
"""What a screen reader, a phone or weak eyes would stumble over."""


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A window."""
    with Browser() as opened:
        yield opened


@pytest.fixture
def desk(new_world: Callable[..., World], new_desk: Any) -> Iterator[RunningDesk]:
    """A desk that TikTok's stand-in sends browsers back to, with notices for a receiver."""
    port = find_free_port()
    home = f"http://127.0.0.1:{port}/callback"
    options = SandboxOptions(redirect_uri=home, ledger_all=False, canary="CANARY")
    with start_sandbox(options) as sandbox, running_receiver() as receiver:
        world = new_world(
            TIKTOK_BASE_URL=sandbox.url, TIKTOK_AUTHORIZE_URL=sandbox.authorize_url, TIKTOK_REDIRECT_URI=home,
            NOTICE_URL=receiver.url, NOTICE_SECRET=SECRET,
        )  # fmt: skip
        yield new_desk(world, DESK_PORT=str(port))


def picture(browser: Browser, name: str) -> None:
    """Keep a picture if somebody wants one."""
    if PICTURES:
        browser.picture(Path(PICTURES) / f"desk-{name}.png")


def check(browser: Browser) -> None:
    """Look at the page on a phone and on a desk, in light and in dark."""
    for size in (PHONE, DESKTOP):
        for dark in (False, True):
            browser.shape(*size, dark=dark)
            assert browser.run(FAULTS) == [], f"{browser.url} at {size}, dark: {dark}"
            if AXE:
                browser.run(Path(AXE).read_text(encoding="utf-8"))
                found = browser.later("const done = arguments[0]; axe.run().then((all) => done(all.violations));")
                assert [each["id"] for each in found if each["impact"] in {"serious", "critical"}] == [], browser.url


def log_in(browser: Browser, desk: RunningDesk, path: str = "/ops") -> None:
    """Open a page of the operators by way of the password."""
    browser.open(desk.url + path)
    assert "/ops/login" in browser.url
    browser.type("#password", PASSWORD)
    browser.click("button[type=submit]")
    browser.arrives(desk.url + path)


def invite(browser: Browser, desk: RunningDesk, creator: str = "") -> str:
    """Make an invitation on its page, and return its link."""
    browser.open(f"{desk.url}/ops/invite")
    browser.type("#reference", "user-42")
    if creator:
        browser.type("#creator", creator)
    browser.click("main .button")
    browser.reads("which works once")
    return browser.attribute("#link", "value")


def to_tiktok(browser: Browser, creator: str) -> None:
    """Follow the invitation to the stand-in's page, where a person decides."""
    url = browser.attribute("a.button", "href")
    browser.open(f"{url}&disable_auto_auth=1&sandbox_creator={creator}")
    browser.reads("The app asks for access")


def test_a_creator_connects_refuses_and_comes_back(browser: Browser, desk: RunningDesk) -> None:
    """Refused first, then agreed; the way back and the link work once; another account is not connected."""
    creator = f"c{secrets.token_hex(6)}"
    log_in(browser, desk)
    link = invite(browser, desk)
    check(browser)
    browser.open(link)
    check(browser)
    browser.shape(*PHONE)
    picture(browser, "invitation-phone")
    to_tiktok(browser, creator)
    browser.click("#deny")
    browser.arrives(f"{desk.url}/connected/declined")
    browser.open(link)
    to_tiktok(browser, creator)
    browser.click("#accept")
    browser.arrives(f"{desk.url}/connected/connected")
    browser.reads("Your account is connected")
    check(browser)
    browser.shape(*PHONE, dark=True)
    picture(browser, "connected-phone-dark")
    assert desk.services.store.grant(creator).reference == "user-42"

    browser.open(link)
    browser.reads("This link was used before")
    browser.open(f"{desk.url}/callback?code=x&state=forged")
    browser.arrives(f"{desk.url}/connected/link-unknown")
    browser.shape(*DESKTOP)
    browser.open(invite(browser, desk, creator="somebody-else"))
    to_tiktok(browser, creator)
    browser.click("#accept")
    browser.arrives(f"{desk.url}/connected/other-account")
    assert [line for line in browser.complaints() if "favicon" not in line and "Content Security Policy" in line] == []


def test_operators_search_reconnect_and_send_again(browser: Browser, desk: RunningDesk) -> None:
    """By mouse through every page; each reads well on a phone, on a desk and in the dark."""
    ada, bob = desk.world.creators(2)
    desk.world.sql(f"UPDATE grants SET reference = 'user-42' WHERE id = {ada.grant_id}")  # noqa: S608 - our own number
    desk.services.store.raise_alarm("1", "reauth_needed", "TikTok says that the grant is gone", grant_id=ada.grant_id)
    desk.world.services.notifier.deliver()
    desk.consumer("shop", references=("user-*",)).token(ada.creator_id)
    log_in(browser, desk, "/ops/grants")
    browser.type("#q", "user-42")
    browser.click("form[role=search] button")
    browser.arrives(f"{desk.url}/ops/grants?q=user-42")
    browser.reads(ada.creator_id)
    assert bob.creator_id not in browser.text("table")
    check(browser)
    browser.click("tbody a")
    browser.reads("What happened")
    check(browser)
    browser.shape(*DESKTOP, dark=True)
    picture(browser, "creator-dark")
    browser.click("form[action='/ops/invite'] button")
    browser.reads("which works once")
    assert "/connect/" in browser.attribute("#link", "value")
    browser.open(f"{desk.url}/ops/notices")
    check(browser)
    browser.click("td button")
    browser.arrives(f"{desk.url}/ops/notices")
    browser.reads("waits for")
    browser.open(f"{desk.url}/ops/consumers")
    check(browser)
    browser.click("td button")
    browser.reads("revoked")
    browser.open(f"{desk.url}/ops")
    check(browser)
    browser.shape(*DESKTOP)
    picture(browser, "overview")
    browser.click("header form button")
    browser.arrives(f"{desk.url}/ops/login")
    check(browser)
    browser.open(f"{desk.url}/ops")
    assert "/ops/login" in browser.url


def test_all_works_without_scripts(desk: RunningDesk) -> None:
    """With scripts switched off a creator connects and an operator makes a link, since no page has any."""
    creator = f"c{secrets.token_hex(6)}"
    with Browser(scripts=False) as plain:
        log_in(plain, desk)
        link = invite(plain, desk)
        plain.open(link)
        to_tiktok(plain, creator)
        plain.click("#accept")
        plain.reads("Your account is connected")
    assert desk.services.store.grant(creator).consent == 1
