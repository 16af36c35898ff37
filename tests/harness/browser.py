"""A page in Chromium, over its debugging pipe: no port, no driver, no network."""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-extensions", "--disable-background-networking", "--disable-sync",
            "--remote-debugging-pipe")  # fmt: skip

COMPLAINTS = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


class Browser:
    """One tab. ``told``: console messages, exceptions and refusals; ``asked``: addresses."""

    def __init__(self, read: int, write: int) -> None:
        self.read, self.write, self.number, self.rest = read, write, 0, b""
        self.session: str | None = None
        self.told: list[str] = []
        self.asked: list[str] = []
        self.events: list[str] = []

    def call(self, method: str, **params: Any) -> Any:
        """What the browser answers."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self.number:
                assert "error" not in found, found
                return found["result"]

    def wait(self, event: str) -> None:
        """Until the browser has told of ``event``."""
        while event not in self.events:
            self._next()

    def _next(self) -> Any:
        while b"\0" not in self.rest:
            more = os.read(self.read, 1 << 20)
            assert more, "the browser ended"
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\0")
        found = json.loads(line)
        if (method := found.get("method")) is not None:
            self.events.append(method)
            if method == "Network.requestWillBeSent":
                self.asked.append(found["params"]["request"]["url"])
            elif method in (
                "Runtime.consoleAPICalled",
                "Runtime.exceptionThrown",
                "Log.entryAdded",
            ):
                self.told.append(json.dumps(found["params"])[:2000])
        return found

    def open(self, page: Path, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a file into a window of ``width`` x ``height`` px."""
        self.told, self.asked, self.events = [], [], []
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=page.as_uri())
        self.wait("Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """Of an expression of JavaScript, as JSON has it."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str, text: str = "") -> None:
        """A key, down and up."""
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            code = {"Tab": 9, "Enter": 13, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}[key]
            self.call(
                "Input.dispatchKeyEvent",
                type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more,
            )  # fmt: skip

    def picture(self, *, whole: bool = False) -> bytes:
        """A PNG of the window, or of the whole page."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(found["data"])


def read_by_people(browser: Browser, file: Path) -> None:
    """Light and dark, on a screen and on a phone: a page is drawn, nothing is fetched, nothing
    complains, nothing scrolls sideways."""
    backs = set()
    for width, dark in ((1280, False), (1280, True), (390, False), (390, True)):
        browser.open(file, width=width, dark=dark)
        drawn = browser.picture()
        assert struct.unpack(">II", drawn[16:24])[0] == width
        assert len(drawn) > 10_000, "something is drawn"
        assert browser.value("document.documentElement.scrollWidth") <= width
        backs.add(browser.value("getComputedStyle(document.body).backgroundColor"))
        assert browser.value("[...document.images].every(it => it.complete && it.naturalWidth > 0)")
        assert browser.told == []
        assert asked_outside(browser.asked) == []
        assert browser.asked[0] == file.as_uri()
    assert len(backs) == 2


@contextmanager
def started(scratch: Path) -> Iterator[Browser]:
    """A browser with one empty tab; its profile lies in ``scratch``."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    assert program is not None, f"none of {', '.join(NAMES)} is installed: apt install chromium"
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    with subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{from_write}', "bash",
         program, *_OPTIONS, f"--user-data-dir={scratch}", "about:blank"],
        pass_fds=(to_read, from_write),
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        os.close(to_read)
        os.close(from_write)
        try:
            found = Browser(from_read, to_write)
            tab = found.call("Target.createTarget", url="about:blank")["targetId"]
            answer = found.call("Target.attachToTarget", targetId=tab, flatten=True)
            found.session = answer["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                found.call(f"{domain}.enable")
            yield found
        finally:
            os.close(to_write)  # then it ends
            os.close(from_read)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def asked_outside(asked: Sequence[str]) -> list[str]:
    """Addresses that are no file and no data."""
    return [url for url in asked if not url.startswith(("file:", "data:"))]
