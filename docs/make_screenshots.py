"""Photograph the live page of a running demo: `make demo`, and `make screenshot` beside it."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

CHECKOUT = Path(__file__).resolve().parent.parent
IMAGES = CHECKOUT / "docs" / "images"
PORT = 8000
# Of the demo's admin user.
USER = "admin"
SIZE = {"width": 1440, "height": 1000}

sys.path.insert(0, str(CHECKOUT))


def main(port: int) -> None:
    """Take the overview in both themes, when its figures have moved for a while."""
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for theme in ("light", "dark"):
            page = overview(browser, f"http://127.0.0.1:{port}", theme)
            page.screenshot(path=IMAGES / f"overview-{theme}.png")
        browser.close()


def overview(browser: Browser, site: str, theme: str) -> Page:
    """Log in and return the overview, live and with a topic event on it."""
    from config.embedded.place import kept_secret

    page = browser.new_page(viewport=SIZE, device_scale_factor=1.5)
    page.add_init_script(f"localStorage.setItem('theme', '{theme}')")
    page.goto(f"{site}/admin/login/?next=/messaging/")
    page.get_by_label("Username").fill(USER)
    page.get_by_label("Password").fill(kept_secret("admin.password"))
    page.get_by_role("button", name="Log in").click()
    page.locator("[data-live-state][data-state=live]").wait_for()
    page.locator("[data-ticker] li.new").first.wait_for()
    # What arrives is lit for a moment.
    page.emulate_media(reduced_motion="reduce")
    return page


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else PORT)
