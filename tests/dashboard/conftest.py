"""What the tests of the operators' pages start from: queues, topics, and who looks at them."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from browser_end import Browser, has_ended
from channels.layers import get_channel_layer
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.db import connection, connections
from django.test import Client
from playwright.async_api import Page, async_playwright
from pytest_django import Settings
from serving import Site
from socket_end import Subscriber
from sse_end import Listener

from messaging import feed
from messaging.dashboard import sockets, streams
from messaging.dashboard.hub import Hub, running_hub
from messaging.dashboard.reader import reader_for
from messaging.models import Queue, Topic

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Some violations the browser would keep to itself.
REPORT_VIOLATIONS = """
    addEventListener("securitypolicyviolation", (event) =>
        console.error(`${event.violatedDirective} forbids ${event.blockedURI}`));
"""


@pytest.fixture
def queue(db: None) -> Callable[..., Queue]:
    """Return a function that creates a queue with the policies given."""

    def create(name: str = "invoices", **policies: Any) -> Queue:
        return Queue.objects.create(name=name, **policies)

    return create


@pytest.fixture
def topic(db: None) -> Callable[..., Topic]:
    """Return a function that creates a topic."""

    def create(name: str = "parcels.sent") -> Topic:
        return Topic.objects.create(name=name)

    return create


@pytest.fixture
def staff(db: None) -> Callable[..., Client]:
    """Return a function that logs in a user with the permissions of messaging that are named."""

    def create(*codenames: str, strict: bool = False, **fields: Any) -> Client:
        user = User.objects.create_user(f"staff{User.objects.count()}", **fields)
        found = Permission.objects.filter(content_type__app_label="messaging")
        chosen = found.filter(codename__in=codenames)
        assert len(chosen) == len(set(codenames))
        user.user_permissions.set(chosen)
        client = Client(enforce_csrf_checks=strict)
        client.force_login(user)
        return client

    return create


@pytest.fixture
def operator(db: None) -> Client:
    """Return the browser of somebody who may see and do everything."""
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    return client


@pytest.fixture
def cursor(transactional_db: None, topic: Callable[..., Topic]) -> str:
    """Return where the feed of a new topic begins."""
    topic("parcels.sent")
    return str(feed.latest().cursor)


@pytest.fixture
def own_session(transactional_db: None) -> int:
    """Return the server process of the test itself."""
    with connection.cursor() as sql:
        sql.execute("SELECT pg_backend_pid()")
        return int(sql.fetchone()[0])


@pytest_asyncio.fixture
async def browse() -> AsyncIterator[Callable[..., Browser]]:
    """Return a function that gives a logged-in user's browser."""
    opened: list[Browser] = []

    def open_for(client: Client, **options: Any) -> Browser:
        opened.append(Browser(client, **options))
        return opened[-1]

    yield open_for
    for browser in opened:
        await browser.leave()
    # What still reads would be in the way of the tables being emptied.
    await has_ended(reader_for(get_channel_layer()))
    await sync_to_async(connections.close_all)()


@pytest.fixture
def parcels(transactional_db: None, topic: Callable[..., Topic]) -> Topic:
    """Return a topic whose events others can see."""
    return topic("parcels.sent")


@pytest.fixture
def site(database_url: str, parcels: Topic, operator: Client, tmp_path: Path) -> Iterator[Site]:
    """Return the site, for a test to start."""
    site = Site(database_url, tmp_path / "site.log")
    yield site
    site.close()


@pytest_asyncio.fixture
async def visit(site: Site, operator: Client) -> AsyncIterator[Callable[..., Awaitable[Page]]]:
    """Return a function that opens the overview; what the browser complains about is an error."""
    complaints: list[str] = []
    await site.start()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=ARGUMENTS
        )

        async def open_page(path: str = "/messaging/", **options: Any) -> Page:
            context = await browser.new_context(**options)
            cookie = operator.cookies[settings.SESSION_COOKIE_NAME]
            await context.add_cookies(
                [{"name": cookie.key, "value": cookie.value, "url": site.url}]
            )
            await context.add_init_script(REPORT_VIOLATIONS)
            page = await context.new_page()
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda said: complaints.append(said.text) if bad(said) else None)
            await page.goto(site.url + path)
            return page

        def bad(said: Any) -> bool:
            # That the site is away is what some tests are about; the browser says so as well.
            away = ("ERR_CONNECTION", "ERR_INCOMPLETE", "WebSocket connection to")
            return said.type == "error" and not any(text in said.text for text in away)

        yield open_page
        await browser.close()
    # What the server still reads would be in the way of the tables being emptied.
    await asyncio.to_thread(site.stop)
    await sync_to_async(connections.close_all)()
    assert complaints == []


@pytest_asyncio.fixture
async def hub() -> AsyncIterator[Hub]:
    """Return what all streams share; it is over when they are."""
    yield running_hub()
    await has_ended(running_hub())
    await sync_to_async(connections.close_all)()


@pytest_asyncio.fixture
async def listen(hub: Hub) -> AsyncIterator[Callable[..., Awaitable[Listener]]]:
    """Return a function that opens a logged-in user's stream of events."""
    opened: list[Listener] = []

    async def open_for(client: Client, resume: str | None = None, **query: str) -> Listener:
        opened.append(Listener(client))
        await opened[-1].ask(resume, **query)
        return opened[-1]

    yield open_for
    for listener in opened:
        await listener.leave()


@pytest_asyncio.fixture
async def subscriber(hub: Hub) -> AsyncIterator[Callable[..., Subscriber]]:
    """Return a function that gives a logged-in user's end of an event socket."""
    opened: list[Subscriber] = []

    def open_for(client: Client, **options: Any) -> Subscriber:
        opened.append(Subscriber(client, **options))
        return opened[-1]

    yield open_for
    for each in opened:
        await each.leave()


@pytest.fixture
def one_by_one(settings: Settings) -> None:
    """Have a backend grant single topics, beside the one that grants all or none."""
    settings.AUTHENTICATION_BACKENDS = [
        "django.contrib.auth.backends.ModelBackend",
        "granting.OneByOne",
    ]


@pytest.fixture
def guest(
    one_by_one: None, parcels: Topic, staff: Callable[..., Client], topic: Callable[..., Topic]
) -> Client:
    """Return the browser of a user to whom the topic `parcels.sent` is granted, and no other."""
    topic("parcels.lost")
    client = staff()
    Topic.objects.filter(name="parcels.sent").update(description=User.objects.get().username)
    return client


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have sockets and streams look up their users all the time."""
    monkeypatch.setattr(sockets, "CHECK_EVERY", 0.05)
    monkeypatch.setattr(streams, "CHECK_EVERY", 0.05)
