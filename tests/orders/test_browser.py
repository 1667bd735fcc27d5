"""A visitor with a browser places an order and watches it, without reloading the page."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import expect, sync_playwright

from messaging.testing import drain
from orders.models import Order

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def browse(live_server):
    """Return a function that runs steps with a page of the shop, and fail on any console error.

    The browser lives in a thread of its own: its event loop would keep Django from the database.
    """
    errors = []

    def note(message):
        if message.type == "error":
            errors.append(message.text)

    with ThreadPoolExecutor(max_workers=1) as thread:

        def run(function, *arguments):
            return thread.submit(function, *arguments).result(timeout=60)

        playwright = run(sync_playwright().start)
        browser = run(
            lambda: playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
        )

        def new_page(**options):
            page = browser.new_context(base_url=live_server.url, **options).new_page()
            page.on("console", note)
            page.on("pageerror", lambda error: errors.append(str(error)))
            return page

        pages = {}

        def browse(steps, **options):
            if "page" not in pages:
                pages["page"] = run(lambda: new_page(**options))
            return run(steps, pages["page"])

        yield browse
        run(browser.close)
        run(playwright.stop)
    assert not errors


def fill_in(page):
    page.goto("/")
    page.get_by_text("Paper Rivers").click()
    page.get_by_label("Name").fill("Ada Example")
    page.get_by_label("E-mail").fill("ada@example.org")
    return page.get_by_role("button", name="Place the order")


def order_a_record(page):
    fill_in(page).click()
    headline(page, "Waiting for payment and stock")


def headline(page, text):
    expect(page.get_by_role("heading", name=text)).to_be_visible()


def test_an_order_is_followed_live_from_placed_to_billed(browse):
    browse(order_a_record)
    browse(lambda page: page.evaluate("window.sameVisit = true"))
    drain("payments")
    browse(
        lambda page: expect(page.get_by_role("heading", name="Waiting for stock")).to_be_visible()
    )
    drain()
    browse(lambda page: headline(page, "Processed in"))
    browse(lambda page: expect(page.locator("li.done")).to_have_count(6))
    assert browse(lambda page: page.evaluate("window.sameVisit"))
    assert Order.objects.get().customer.email == "ada@example.org"


def test_an_order_is_followed_without_javascript(browse):
    browse(order_a_record, java_script_enabled=False)
    drain()
    browse(lambda page: headline(page, "Processed in"))


def test_an_order_that_is_being_placed_cannot_be_sent_a_second_time(browse):
    def click(page):
        disabled = fill_in(page).evaluate("button => { button.click(); return button.disabled; }")
        headline(page, "Waiting for payment and stock")
        return disabled

    assert browse(click)
    assert Order.objects.count() == 1


def test_the_theme_is_kept_and_shared_with_the_admin(browse):
    def choose_dark(page):
        page.emulate_media(color_scheme="light")
        page.goto("/")
        toggle = page.get_by_role("button", name="Theme")
        toggle.click()
        toggle.click()
        page.goto("/orders/")
        return page.evaluate(
            "[localStorage.theme, getComputedStyle(document.body).backgroundColor]"
        )

    assert browse(choose_dark) == ["dark", "rgb(15, 18, 22)"]


@pytest.mark.parametrize("address", ["/", "/orders/"])
def test_a_page_fits_a_phone(browse, address):
    def overflow(page):
        page.goto(address)
        return page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )

    assert browse(overflow, viewport={"width": 360, "height": 740}) == 0
