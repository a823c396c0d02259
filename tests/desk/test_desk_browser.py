"""The desk through a real browser: a creator's way, the operators' pages, and how they look and read."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from tests.conftest import find_free_port
from tests.support.axe import axe_script, serious_findings
from tests.support.desk import PASSWORD, RunningDesk
from tests.support.filled import SCOPE, fill
from tests.support.receiver import SECRET, running_receiver
from tests.support.webdriver import Browser, driver_program
from tests.support.world import World
from worker.desk.outcomes import OUTCOMES
from worker.desk.pages import HERE, Pages
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import start_sandbox
from worker.store import GrantView

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(400),
    pytest.mark.skipif(driver_program() is None, reason="Chromium with chromedriver is not installed"),
]
PHONE: Final = (360, 780)
DESKTOP: Final = (1100, 780)
PICTURES: Final = os.environ.get("DESK_PICTURES")
"""A folder for pictures, if somebody wants to look at them."""
TEMPLATES: Final = HERE / "templates"
LAYOUTS: Final = frozenset({"account", "base", "creator", "form_key", "notices_table", "ops"})
"""Templates that are parts of pages."""
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
if (document.documentElement.scrollWidth > document.documentElement.clientWidth) faults.push("wider than the window");
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
    options = SandboxOptions(
        redirect_uri=home, ledger_all=False, canary="CANARY", scopes=tuple(SCOPE.split(",")), seed=7
    )
    with start_sandbox(options) as sandbox, running_receiver() as receiver:
        world = new_world(
            TIKTOK_BASE_URL=sandbox.url, TIKTOK_AUTHORIZE_URL=sandbox.authorize_url, TIKTOK_REDIRECT_URI=home,
            NOTICE_URL=receiver.url, NOTICE_SECRET=SECRET,
        )  # fmt: skip
        world.sandbox = sandbox
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


def fill_with_gaps(desk: RunningDesk, grant: GrantView) -> None:
    """Pull an account, and let two days and one figure be missing."""
    fill(desk.world, grant)
    day = desk.services.store.ping().date()
    desk.world.sql(f"DELETE FROM account_days WHERE day IN ('{day - timedelta(20)}', '{day - timedelta(19)}')")  # noqa: S608 - our own days
    desk.world.sql(f"UPDATE account_days SET video_views = NULL WHERE day = '{day - timedelta(33)}'")  # noqa: S608 - as above
    for age in range(2, 50):
        if age not in {19, 20, 21, 40}:
            desk.world.sql(
                "INSERT INTO account_counters (creator_id, read_at, followers_count) SELECT creator_id,"  # noqa: S608 - as above
                f" read_at - {age * 86_400_000}, followers_count - {age * 11 + age % 5 * 9} FROM account_counters"
                f" WHERE read_at = (SELECT max(read_at) FROM account_counters)"
            )


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
    ada, bob, carol = desk.world.creators(3, scope=SCOPE)
    fill_with_gaps(desk, ada)
    desk.services.store.pause(creator_id=carol.creator_id)
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
    browser.click("summary")
    check(browser)
    browser.click("summary")
    for name, size, dark in (("", DESKTOP, False), ("-dark", DESKTOP, True), ("-phone", PHONE, False)):
        browser.shape(size[0], 2 * size[1], dark=dark)
        browser.run("scrollTo(0, 0)")
        picture(browser, f"creator{name}")
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


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_axe_finds_nothing_serious_on_any_page(
    browser: Browser, desk: RunningDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every page of creators and of operators, full and empty, on a phone and on a desk, in light and in dark."""
    axe_script()
    shown, show = set[str](), Pages.show

    def noted(pages: Pages, template: str, /, **values: Any) -> Any:
        shown.add(template)
        return show(pages, template, **values)

    monkeypatch.setattr(Pages, "show", noted)
    browser.open(f"{desk.url}/ops/login")
    look(browser)
    browser.type("#password", "wrong")
    browser.click("button[type=submit]")
    browser.reads("is wrong")
    look(browser)
    log_in(browser, desk)
    for path in ("", "/grants", "/notices", "/consumers"):
        browser.open(f"{desk.url}/ops{path}")
        look(browser)
    link = invite(browser, desk)
    look(browser)
    ada, bob, *_ = desk.world.creators(3, scope=SCOPE)
    fill_with_gaps(desk, ada)
    store = desk.services.store
    store.raise_alarm("1", "reauth_needed", "TikTok says that the grant is gone", grant_id=ada.grant_id)
    desk.world.services.notifier.deliver()
    desk.world.services.refresher.refresh(ada.grant_id)
    store.pause(creator_id=bob.creator_id)
    store.pull_brake("TikTok refuses the app's secret", probe_seconds=3600)
    for name in ("shop", "blog"):
        desk.consumer(name).token(ada.creator_id)
    store.revoke_consumer("blog")
    ours = ("", "/grants", f"/grants?q={ada.creator_id}", f"/grants/{ada.creator_id}", f"/grants/{bob.creator_id}",
            "/invite", "/notices", "/consumers", "/grants/nobody", "/grants?state=none")  # fmt: skip
    theirs = [urlsplit(link).path, "/connect/unknown", "/nowhere", *(f"/connected/{outcome}" for outcome in OUTCOMES)]
    for path in [*(f"/ops{each}" for each in ours), *theirs]:
        browser.open(desk.url + path)
        look(browser)

    assert shown == {file.stem for file in TEMPLATES.glob("*.html")} - LAYOUTS


def look(browser: Browser) -> None:
    """Let axe look at the page in each shape, with what can be opened open."""
    browser.run("for (const each of document.querySelectorAll('details')) each.open = true")
    for size, dark in ((PHONE, False), (PHONE, True), (DESKTOP, False), (DESKTOP, True)):
        browser.shape(*size, dark=dark)
        assert serious_findings(browser) == [], f"{browser.url} at {size}, dark: {dark}"


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
