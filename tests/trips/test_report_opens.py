"""The report of a real run in a real browser: it shows, asks nobody for anything and complains of nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"),
)
LIMIT_S = 60.0


class Browser:
    """Chromium by the pipe that it offers to debuggers: commands in, answers and events out."""

    def __init__(self, program: str, home: Path) -> None:
        self._in, theirs_out = os.pipe()
        theirs_in, self._out = os.pipe()
        command = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out} {theirs_in}<&- {theirs_out}>&-'
        self._process = subprocess.Popen(
            ["bash", "-c", command, program, *FLAGS, f"--user-data-dir={home}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        os.set_blocking(self._in, False)
        self._rest = b""
        self._count = 0
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, session: str | None = None, **parameters: object) -> dict[str, Any]:
        """One command and its answer; events that come meanwhile are kept."""
        self._count += 1
        number = self._count
        said = {"id": number, "method": method, "params": parameters}
        os.write(self._out, json.dumps(said | ({"sessionId": session} if session else {})).encode() + b"\0")
        answer = self.wait(lambda message: message.get("id") == number)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def wait(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        until = time.monotonic() + LIMIT_S
        while time.monotonic() < until:
            for message in self._messages():
                self.events.append(message)
                if wanted(message):
                    return message
            time.sleep(0.01)
        raise AssertionError("the browser does not answer")

    def listen(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.events += self._messages()
            time.sleep(0.01)

    def _messages(self) -> list[dict[str, Any]]:
        try:
            data = os.read(self._in, 1 << 20)
        except BlockingIOError:
            return []
        *whole, self._rest = (self._rest + data).split(b"\0")
        return [json.loads(one) for one in whole]

    def close(self) -> None:
        os.close(self._in)
        os.close(self._out)
        self._process.kill()
        self._process.wait()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    program = next((path for name in NAMES if (path := shutil.which(name))), None)
    if program is None or shutil.which("bash") is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is installed")
    made = Browser(program, tmp_path / "profile")
    yield made
    made.close()


def test_the_report_opens_without_a_request_and_without_an_error(browser: Browser, taught: Any) -> None:
    target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
    session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Network", "Log", "Runtime", "Page"):
        browser.ask(f"{domain}.enable", session)
    browser.events.clear()
    address = (taught.out / "report.html").as_uri()
    browser.ask("Page.navigate", session, url=address)
    if not any(event.get("method") == "Page.loadEventFired" for event in browser.events):
        browser.wait(lambda message: message.get("method") == "Page.loadEventFired")
    browser.listen(1)
    asked = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert address in asked
    assert [url[:80] for url in asked if url != address and not url.startswith("data:")] == []
    loud = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Network.loadingFailed")
    assert [event for event in browser.events if event.get("method") in loud] == []

    def value(expression: str) -> Any:
        found = browser.ask("Runtime.evaluate", session, expression=expression, returnByValue=True)
        return found["result"]["value"]

    text = value("document.body.innerText")
    for label in taught.facts["classes"]:
        assert label in text
    assert f"{100 * taught.facts['accuracy']['test']:.1f}" in text
    broken = "[...document.images].filter(i => !i.complete || i.naturalWidth === 0).length"
    assert value(broken) == 0
    assert value("document.documentElement.scrollWidth <= window.innerWidth") is True
