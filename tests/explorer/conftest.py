"""One small run, its page, and one browser serve all tests here."""

import os
import shutil

import pytest
from explored_run import Shown
from quick_compilation import quick_compilation

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def shown(tmp_path_factory):
    with quick_compilation():  # a session's fixture is made before a file says how it compiles
        return Shown(tmp_path_factory.mktemp("explored"))


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    path = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, NAMES)), None)
    assert path, f"there is no browser: none of {', '.join(NAMES)} is installed, and BROWSER_PATH names none"
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
