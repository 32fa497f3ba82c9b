"""The page in a real browser: headless Chromium, driven by its own driver."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.runtime.session import InferenceSession
from tests.models import chain

DRIVER = "/usr/bin/chromedriver"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    if not (Path(DRIVER).exists() and shutil.which("chromium")):
        reason = "the packages chromium and chromium-driver are missing"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'browser'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def session(tmp_path: Path) -> Iterator[InferenceSession]:
    """Four peers under a stream of frames."""
    with InferenceSession(
        chain(), local_peers=4, policy="equal", cache_dir=tmp_path, view="127.0.0.1:0"
    ) as session:
        over = threading.Event()

        def stream() -> None:
            for _ in session.stream(repeat(np.zeros((1, 3, 16, 6), "float32")), 2):
                if over.wait(0.02):
                    return

        thread = threading.Thread(target=stream)
        thread.start()
        yield session
        over.set()
        thread.join()


def until(condition: Callable[[], bool], limit_s: float = 20.0) -> float:
    """Looks again and again; returns the seconds that it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < limit_s, "it did not happen in time"
        threading.Event().wait(0.05)
    return time.monotonic() - start


def test_the_page_shows_peers_a_loss_and_plan_changes(browser: Any, session: InferenceSession) -> None:
    from selenium.common.exceptions import StaleElementReferenceException

    def select(selector: str, attribute: str) -> list[str]:
        try:
            found = browser.find_elements("css selector", selector)
            return [str(element.get_dom_attribute(attribute)) for element in found]
        except StaleElementReferenceException:  # drawn anew meanwhile
            return select(selector, attribute)

    def text(selector: str) -> str:
        try:
            return str(browser.find_element("css selector", selector).text)
        except StaleElementReferenceException:
            return text(selector)

    def parts() -> set[str]:
        return {part.split(":")[1] for part in select("[data-part]", "data-part")}

    browser.get(session.view_url)
    everybody = [f"peer{at}" for at in range(4)]
    until(lambda: select("[data-device][data-state=up]", "data-device") == everybody)
    until(lambda: parts() == set(everybody) and float(text("[data-number=rate]")) > 0)

    os.kill(session.local_pids[1], signal.SIGKILL)
    took_s = until(lambda: "peer1 died" in text("ul.events"))
    assert took_s < 3
    until(lambda: select("[data-device=peer1]", "data-state") == ["up"])  # started again
    until(lambda: parts() == set(everybody) and "peer1 is back" in text("ul.events"))

    graph = session.model.graph
    rows = [volume.rows for volume in find_volumes(graph, PartitionScheme())]
    alone = Strategy(PartitionScheme(), tuple(SplitDecision((0, 0, 0, each, each)) for each in rows))
    session.use(alone)
    until(lambda: parts() == {"peer2"} and "peer2 100%" in text("li[data-event=plan]"))
    assert browser.get_log("browser") == []
