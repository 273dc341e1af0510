"""The chat page as a person uses it, in a real browser without a screen."""

from __future__ import annotations

import shutil
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    page.set_default_timeout(20_000)
    yield page
    page.close()


def active(server: Any) -> float:
    with urllib.request.urlopen(f"{server.url}/metrics") as response:
        lines = response.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith("kindling_serve_active ")).split()[1])


def say(page: Page, text: str) -> None:
    box = page.locator("#message textarea")
    expect(box).to_be_enabled(timeout=20_000)
    box.fill(text)
    box.press("Enter")


def choose(page: Page, label: str, value: str) -> None:
    number = page.get_by_role("spinbutton", name=label)
    number.fill(value)
    number.press("Tab")


def answer(page: Page) -> str:
    """The last one, when it has come to its end: nobody is answered, and the text stays as it is."""
    said, before = page.get_by_test_id("bot").last, None
    while True:
        expect(page.locator("#message textarea")).to_be_enabled(timeout=20_000)  # not while it is said
        text = said.inner_text()
        if text == before:
            return text
        before = text
        page.wait_for_timeout(400)


def test_a_person_talks_stops_regenerates_changes_the_temperature_and_reloads(
    serve: Any, tiny: Any, page: Page
) -> None:
    # An answer that no machine ends before it is stopped, at a speed at which people are answered.
    server = serve(tiny(context=8192, layers=60), page=True)
    hosts = set[str]()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.goto(server.url)
    choose(page, "Temperature", "0")
    choose(page, "Most tokens", "40")
    say(page, "hello")
    page.get_by_test_id("bot").wait_for()
    first = answer(page)
    assert len(first.strip()) >= 30

    page.get_by_role("button", name="Retry").click()  # greedy: the same again
    page.wait_for_timeout(500)
    assert answer(page) == first

    choose(page, "Temperature", "1.5")
    page.get_by_role("button", name="Retry").click()
    page.wait_for_timeout(500)
    assert answer(page) != first

    choose(page, "Temperature", "0")
    page.get_by_role("button", name="Retry").click()  # what follows must not depend on what was drawn
    page.wait_for_timeout(500)
    assert answer(page) == first

    choose(page, "Most tokens", "4000")
    say(page, "tell me more")
    expect(page.get_by_test_id("bot")).to_have_count(2)
    growing, until = [0], time.monotonic() + 15
    while len(growing) < 5:  # it comes bit by bit
        assert time.monotonic() < until, growing
        page.wait_for_timeout(50)
        if (length := len(page.get_by_test_id("bot").last.inner_text())) != growing[-1]:
            growing.append(length)
    assert growing == sorted(growing)
    page.locator(".stop-button").dispatch_event("click")  # it moves, as the text above it grows
    until = time.monotonic() + 5
    while active(server):
        assert time.monotonic() < until, "the slot is not free"
        time.sleep(0.05)
    stopped = page.get_by_test_id("bot").last.inner_text()
    page.wait_for_timeout(300)
    assert page.get_by_test_id("bot").last.inner_text() == stopped
    assert len(stopped) < 4000

    page.reload()
    page.get_by_text("hello").first.click()  # the browser remembers the dialogue
    expect(page.get_by_test_id("bot")).not_to_have_count(0)
    assert hosts == {server.url.removeprefix("http://")}  # nothing was fetched from elsewhere


def test_with_a_key_the_page_asks_for_it(serve: Any, page: Page) -> None:
    server = serve(page=True, api_key="secret")
    page.goto(server.url)
    for password, inside in (("guess", False), ("secret", True)):
        page.get_by_label("username").fill("me")
        page.get_by_label("password").fill(password)
        page.get_by_role("button", name="Login").click()
        if inside:
            page.locator("#message").wait_for()
        else:
            page.get_by_text("Incorrect Credentials").wait_for()


def test_what_goes_wrong_is_said_and_the_page_goes_on(serve: Any, tiny: Any, page: Page) -> None:
    server = serve(tiny(context=64), page=True)
    page.goto(server.url)
    say(page, "x" * 200)
    page.get_by_text("The prompt has").first.wait_for()
    choose(page, "Most tokens", "5")
    say(page, "hi")
    page.get_by_test_id("bot").first.wait_for()
