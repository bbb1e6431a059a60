"""The page in a real browser: nothing is fetched, nothing is logged, nothing overflows, in light and dark, wide and narrow."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vmlab.report import batch, publish, store
from vmlab.report.html import report_html

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.timeout(120),
]

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe"),
]


class Browser:
    """Chromium driven by its DevTools protocol over a pipe: NUL-ended JSON, commands on descriptor 3, answers on 4."""

    def __init__(self, profile: Path) -> None:
        there, self._out = os.pipe()
        self._in, back = os.pipe()
        command = f'exec "$0" "$@" 3<&{there} 4>&{back}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", command, str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(there, back),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(there)
        os.close(back)
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        self._session: str | None = None
        self._session = self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if getattr(self, "_session", None):
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "Chromium ended"
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def open(self, path: Path, *, width: int, dark: bool) -> None:
        self.do("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.do("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
        self.events.clear()
        self.do("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def ask(self, expression: str) -> Any:
        return self.do("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self) -> bytes:
        size = self.do("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16000), "scale": 1}
        return base64.b64decode(self.do("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"])

    def pdf(self) -> bytes:
        return base64.b64decode(self.do("Page.printToPDF", preferCSSPageSize=True)["data"])

    def close(self) -> None:
        os.close(self._out)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    one = Browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def pages(samples: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pages")
    for name in ("report", "passing", "broken", "empty", "nasty"):
        (directory / f"{name}.html").write_text(report_html(getattr(samples, name)()), encoding="utf-8")
    rows = []
    for name in ("passing", "report", "broken", "nasty", "empty"):
        (directory / name).mkdir()
        publish.save_report(getattr(samples, name)(), directory / name)
        rows.append(batch.row_of(store.load(directory / name), directory / name, directory, job=name, key=""))
    rows.append(batch.LabRow(job="late", lab="late", title="A lab that was not reached", key=""))
    names, when = [row.job for row in rows], "2026-11-24T08:00:00+00:00"
    of_all = batch.Batch(started_at=when, duration_s=93, command="vmlab run all", runner_version="0.1.0", whole=names, rows=rows)
    publish.save_index(of_all, directory)
    publish.save_matrix(samples.matrix(), directory)
    return directory


@pytest.mark.parametrize("name", ["report", "passing", "broken", "empty", "nasty", "index", "controls"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_page_is_quiet_and_fits(browser: Browser, pages: Path, name: str, width: int, dark: bool) -> None:
    browser.open(pages / f"{name}.html", width=width, dark=dark)

    messages = [e for e in browser.events if e.get("method") in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")]
    assert messages == []
    fetched = {e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"}
    assert {url for url in fetched if not url.startswith("data:")} == {(pages / f"{name}.html").as_uri()}
    assert browser.ask("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    picture = browser.screenshot()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000, "an empty picture"
    if where := os.environ.get("VMLAB_SCREENSHOTS"):
        Path(where, f"{name}-{width}-{'dark' if dark else 'light'}.png").write_bytes(picture)


def test_dark_and_light_differ(browser: Browser, pages: Path) -> None:
    seen = set()
    for dark in (False, True):
        browser.open(pages / "report.html", width=1280, dark=dark)
        seen.add(browser.ask("getComputedStyle(document.body).backgroundColor"))
        assert browser.ask("matchMedia('(prefers-color-scheme: dark)').matches") is dark
    assert len(seen) == 2


def test_plots_are_images_with_a_name_for_screen_readers(browser: Browser, pages: Path) -> None:
    browser.open(pages / "report.html", width=1280, dark=False)
    nodes = browser.do("Accessibility.getFullAXTree")["nodes"]
    images = [node for node in nodes if node.get("role", {}).get("value") in ("image", "img") and not node.get("ignored")]

    assert [node["name"]["value"] for node in images] == [
        "Kernel memory grows with every zombie",
        "Reaping takes the same time whoever reaps",
        "Forks until the limit",
    ]
    assert "17 points" in images[0]["description"]["value"]
    landmarks = {node["role"]["value"] for node in nodes if node.get("role")}
    assert {"banner", "main", "navigation", "contentinfo"} <= landmarks


def test_scripts_of_a_guest_do_not_run(browser: Browser, pages: Path) -> None:
    browser.open(pages / "nasty.html", width=1280, dark=False)

    assert browser.ask("document.querySelectorAll('script, img, iframe, object').length") == 0
    assert browser.ask("[...document.links].every(a => a.protocol === 'file:')") is True


def test_prints(browser: Browser, pages: Path) -> None:
    browser.open(pages / "report.html", width=1280, dark=True)
    printed = browser.pdf()

    assert printed.startswith(b"%PDF")
    if where := os.environ.get("VMLAB_SCREENSHOTS"):
        Path(where, "report.pdf").write_bytes(printed)


def test_what_is_folded_on_the_screen_is_printed(browser: Browser, pages: Path) -> None:
    """The method of a check lies in a closed <details>, which a reader of paper could not open."""
    browser.open(pages / "report.html", width=1280, dark=False)
    height = "(() => { const p = document.querySelector('details.method > p'); return p.checkVisibility({contentVisibilityAuto: true})"
    height += " ? p.getBoundingClientRect().height : 0 })()"
    assert browser.ask("document.querySelectorAll('details.method:not([open])').length") > 0
    assert browser.ask(height) == 0, "it is folded on the screen"
    browser.do("Emulation.setEmulatedMedia", media="print")
    # (Another medium alone does not make Chromium lay this part out anew. Printing does.)
    browser.ask("document.documentElement.style.display = 'none'; document.body.offsetHeight; document.documentElement.style.display = ''")
    try:
        assert browser.ask(height) > 10
    finally:
        browser.do("Emulation.setEmulatedMedia", media="")


@pytest.mark.parametrize("dark", [False, True])
def test_a_term_leads_to_what_it_means_and_is_told_from_its_text_without_colour(browser: Browser, pages: Path, dark: bool) -> None:
    browser.open(pages / "report.html", width=1280, dark=dark)
    style = "getComputedStyle(document.querySelector('h3 .term'))"
    assert browser.ask(f"{style}.textDecorationLine") == "underline"
    assert browser.ask(f"{style}.textDecorationStyle") == "dotted"
    assert browser.ask(f"{style}.color") == browser.ask("getComputedStyle(document.querySelector('h3:has(.term)')).color")
    browser.ask("document.querySelector('h3 .term').click()")
    assert browser.ask("document.querySelector(':target').closest('dl').className").endswith("glossary")
    assert browser.ask("document.querySelector(':target + dd').textContent.length") > 40
