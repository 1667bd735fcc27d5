"""In a real browser the page is live, comes back after a restart, and works without its parts."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import Client
from playwright.async_api import Page, expect
from serving import PATIENCE, Site

from messaging import apublish, asend
from messaging.models import Queue, Stat, Topic

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

expect.set_options(timeout=PATIENCE * 1_000)


def bodies(page: Page) -> Any:
    return page.locator("[data-ticker] li code")


async def is_live(page: Page) -> None:
    await expect(page.locator("[data-live-state]")).to_have_text("Live")


async def test_an_event_appears_when_its_transaction_commits(
    visit: Callable[..., Awaitable[Page]],
) -> None:
    page = await visit()
    await expect(page.get_by_text("Nothing has been published")).to_be_visible()
    await is_live(page)
    await apublish("parcels.sent", {"to": "Grace"})
    await expect(bodies(page)).to_have_text(['{"to": "Grace"}'])
    await expect(page.get_by_text("Nothing has been published")).to_be_hidden()
    await apublish("parcels.sent", {"to": "Ada"})
    await expect(bodies(page)).to_have_text(['{"to": "Ada"}', '{"to": "Grace"}'])


async def test_figures_change_without_a_reload(
    visit: Callable[..., Awaitable[Page]], queue: Callable[..., Queue]
) -> None:
    invoices = await sync_to_async(queue)("invoices")
    page = await visit()
    row = page.locator(f"#queue-{invoices.pk}")
    await expect(row.locator("td").first).to_have_text("0")
    await is_live(page)
    await asend("invoices", 1)
    await expect(row.locator("td").first).to_have_text("1")
    await expect(page.get_by_text("No worker is running").first).to_be_visible()
    shipments = await sync_to_async(queue)("shipments")
    await expect(page.locator(f"#queue-{shipments.pk}")).to_contain_text("shipments")
    await sync_to_async(shipments.delete)()
    await expect(page.locator(f"#queue-{shipments.pk}")).to_have_count(0)


async def test_a_page_comes_back_after_a_restart_and_shows_what_it_missed(
    site: Site, visit: Callable[..., Awaitable[Page]]
) -> None:
    page = await visit()
    await is_live(page)
    await apublish("parcels.sent", "before")
    await expect(bodies(page)).to_have_text(['"before"'])
    for life in range(2):
        await asyncio.to_thread(site.stop)
        await expect(page.locator("[data-live-state]")).to_contain_text("Reconnecting")
        for number in range(3):
            await apublish("parcels.sent", f"missed {life} {number}")
        await site.start()
        await is_live(page)
        await apublish("parcels.sent", f"after {life}")
        await expect(bodies(page).first).to_have_text(f'"after {life}"')
    shown = [text.strip('"') for text in await bodies(page).all_text_contents()]
    assert list(reversed(shown)) == [
        "before",
        *(f"missed 0 {number}" for number in range(3)),
        "after 0",
        *(f"missed 1 {number}" for number in range(3)),
        "after 1",
    ]


async def test_a_page_without_a_socket_polls_and_says_so(
    visit: Callable[..., Awaitable[Page]],
) -> None:
    page = await visit("/messaging/", java_script_enabled=True)
    await page.route_web_socket(re.compile("/live/"), lambda blocked: blocked.close())
    await page.reload()
    state = page.locator("[data-live-state]")
    await expect(state).to_have_text(re.compile(r"Polling.* · last update \d\d:\d\d:\d\d"))
    for number in range(3):
        await apublish("parcels.sent", number)
    await expect(bodies(page)).to_have_text(["2", "1", "0"])
    await expect(state).to_contain_text("Polling")


async def test_a_page_without_scripts_can_be_read_and_says_how_it_is_refreshed(
    visit: Callable[..., Awaitable[Page]], queue: Callable[..., Queue]
) -> None:
    await sync_to_async(queue)("invoices")
    await apublish("parcels.sent", {"to": "Grace"})
    page = await visit(java_script_enabled=False)
    await expect(page.get_by_text("Reload to refresh")).to_be_visible()
    await expect(page.get_by_role("rowheader", name="invoices")).to_be_visible()
    await expect(bodies(page)).to_have_text(['{"to": "Grace"}'])
    await expect(page.get_by_role("button", name="Hold")).to_be_hidden()
    await page.locator("tr", has_text="invoices").hover()
    await page.get_by_role("button", name="Pause invoices").click()
    await expect(page.get_by_role("button", name="Resume invoices")).to_be_visible()


async def test_a_queue_is_paused_without_leaving_the_page_and_the_focus_stays(
    visit: Callable[..., Awaitable[Page]], queue: Callable[..., Queue]
) -> None:
    await sync_to_async(queue)("invoices")
    page = await visit()
    await is_live(page)
    await page.evaluate("document.body.dataset.same = 'page'")
    await page.get_by_role("button", name="Pause invoices").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Resume invoices")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Pause invoices")).to_be_focused()
    await expect(page.locator("body")).to_have_attribute("data-same", "page")


async def test_the_ticker_can_be_held(visit: Callable[..., Awaitable[Page]]) -> None:
    page = await visit()
    await is_live(page)
    await apublish("parcels.sent", 1)
    await expect(bodies(page)).to_have_text(["1"])
    hold = page.locator("[data-hold]")
    await hold.click()
    await apublish("parcels.sent", 2)
    await expect(hold).to_have_text("Show 1 new")
    await expect(bodies(page)).to_have_text(["1"])
    await hold.click()
    await expect(bodies(page)).to_have_text(["2", "1"])


async def test_a_topic_is_followed_alone(
    visit: Callable[..., Awaitable[Page]], topic: Callable[..., Topic]
) -> None:
    await sync_to_async(topic)("parcels.lost")
    await apublish("parcels.sent", 1)
    await apublish("parcels.lost", 2)
    page = await visit()
    await page.locator("[data-ticker]").get_by_role("link", name="parcels.lost").click()
    await is_live(page)
    await expect(bodies(page)).to_have_text(["2"])
    await apublish("parcels.sent", 3)
    await apublish("parcels.lost", 4)
    await expect(bodies(page)).to_have_text(["4", "2"])
    await page.get_by_role("link", name="Show all topics").click()
    await expect(bodies(page)).to_have_text(["4", "3", "2", "1"])


async def test_what_strangers_write_is_text(
    visit: Callable[..., Awaitable[Page]], queue: Callable[..., Queue]
) -> None:
    nasty = "<img src=x onerror=\"document.title='owned'\"></template></script>"
    await sync_to_async(queue)("invoices", description=nasty)
    page = await visit()
    await is_live(page)
    await apublish("parcels.sent", nasty)
    await apublish("parcels.sent", {nasty: 2**63})
    await expect(bodies(page)).to_have_count(2)
    await expect(bodies(page).first).to_contain_text(str(2**63))
    assert await page.locator("main img").count() == 0
    assert await page.title() == "Overview · Messaging"


async def test_who_logs_out_elsewhere_is_told_and_sees_nothing_new(
    visit: Callable[..., Awaitable[Page]], operator: Client
) -> None:
    page = await visit()
    await is_live(page)
    await sync_to_async(operator.logout)()
    await expect(page.locator("[data-live-state]")).to_contain_text("Signed out")
    await apublish("parcels.sent", "secret")
    await expect(bodies(page)).to_have_count(0)


async def test_the_theme_is_the_one_of_the_admin(visit: Callable[..., Awaitable[Page]]) -> None:
    page = await visit()
    background = "getComputedStyle(document.body).backgroundColor"
    await page.evaluate("localStorage.setItem('theme', 'dark')")
    await page.reload()
    dark = await page.evaluate(background)
    await page.get_by_role("button", name="Theme: dark").click()
    await expect(page.get_by_role("button", name="Theme: auto")).to_be_visible()
    await page.get_by_role("button", name="Theme: auto").click()
    assert await page.evaluate("localStorage.getItem('theme')") == "light"
    assert await page.evaluate(background) != dark


@pytest.mark.parametrize("width", [360, 768, 1440])
async def test_the_page_fits(
    visit: Callable[..., Awaitable[Page]], queue: Callable[..., Queue], width: int
) -> None:
    invoices = await sync_to_async(queue)("x" * 80, description="long")
    await sync_to_async(Stat.objects.create)(process="web/1", queue=invoices, published=1_000_000)
    await apublish("parcels.sent", "y" * 10_000)
    page = await visit(viewport={"width": width, "height": 800})
    await is_live(page)
    assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_nothing_comes_from_elsewhere(visit: Callable[..., Awaitable[Page]]) -> None:
    page = await visit()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.reload()
    await is_live(page)
    assert len(asked) > 3
    assert {url.split("/")[2] for url in asked} == {page.url.split("/")[2]}
