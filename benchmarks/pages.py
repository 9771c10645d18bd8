"""Waiting for a page: the demo in Chromium, neurons never seen and neurons seen."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.interleaved import spread
from benchmarks.options import Options
from explorer.backend import Asker, Backend
from explorer.records import Status
from explorer.settings import DEMO, HOME, load_settings

LAYER, LOWER = "blocks.5.3.bn2", "blocks.5.2.bn2"
REFERENCES = 100
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
SETTLED = (
    "[data-testid=stApp][data-test-script-state=notRunning]"
    "[data-test-connection-state=CONNECTED]:not(:has([data-stale=true]))"
)
ALL = """
const all = selector => {
  const within = "[data-testid=stBidiComponentIsolated]";
  const hosts = document.querySelectorAll(`${within}, ${within} *`);
  const roots = [document, ...[...hosts].map(host => host.shadowRoot).filter(Boolean)];
  return roots.flatMap(root => [...root.querySelectorAll(selector)]);
};
"""
"""What a selector finds, in galleries too, which are documents of their own."""
SHOWN = (
    "all('[aria-label=\"{}\"] .card:not([data-old])').some(card => card.getClientRects().length)"
)
STEPS = {
    "split": SHOWN.format("Pictures of virtual neuron A"),
    "row": "!all('[aria-label=References] .waits').length",
    "crops": "!all('.waits').length",
    "complete": "['Correlation ↑', 'UMAP of the rows'].every("
    "text => document.body.textContent.includes(text))"
    " && !all('[data-testid=stProgress]').length"
    f" && all({SETTLED!r}).length",
}
"""What is true of a page once its virtual neurons, the crops of the first page of references, all
crops, and everything are drawn."""
PATIENCE = 120.0
READING_SECONDS = 10.0
"""What somebody spends on the first neuron, while the worker gets ready for others."""
PAUSE_SECONDS = 1.0
TURNS = 5
"""From neuron to neuron by Next."""


@dataclass(frozen=True)
class Site:
    """A server over the demo; ``started`` is when its process was, on time.perf_counter."""

    url: str
    backend: Backend
    started: float

    def neuron(self, channel: int) -> str:
        """The address of a neuron's page."""
        return f"{self.url}/Neuron?ws={DEMO.name}&layer={LAYER}&neuron={channel}"


def measure(options: Options) -> dict[str, Any]:
    """Milliseconds from opening an address until something stands on the screen."""
    if not CHROMIUM:
        return {"pages_skipped": "Chromium is not installed: install it to measure pages."}
    if importlib.util.find_spec("playwright") is None:
        return {"pages_skipped": "Playwright is not installed: pip install playwright."}
    from playwright.sync_api import sync_playwright

    opened, turned = (1, 2) if options.quick else (5, 5)
    folder = _cache(options.folder / "pages")
    with _serving(folder) as site:
        many = _usable(site)
        chosen = np.random.default_rng(0).choice(many, 1 + opened + turned, replace=False)
        first, *channels = (int(channel) for channel in chosen)
        stepped = None if options.quick else _in_a_row(many, chosen)
    with sync_playwright() as playwright, _serving(folder) as site:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        tab = chromium.new_context(viewport={"width": 1440, "height": 1000}).new_page()
        tab.set_default_timeout(PATIENCE * 1000)
        found = _figures(tab, site, first, channels[:opened], channels[opened:])
        if stepped is not None:
            found |= _figures_of_next(tab, site, stepped)
        chromium.close()
    return found


def _figures(
    tab: Any, site: Site, first: int, opened: list[int], turned: list[int]
) -> dict[str, float]:
    """The first page after the start; then neurons never seen and the same again, some by opening
    their addresses and others, two at least, by asking for them in the open page."""
    _open(tab, site, first)
    after_start = _wait(tab, site.started)["split"]
    time.sleep(READING_SECONDS)
    found = {"pages_first_after_start_ms": 1000 * after_start}
    for way, turn, some in (("", _open, opened), ("in_page_", _turn, turned)):
        for kind in ("cold", "warm"):
            visits = []
            for channel in some:
                visits.append(_wait(tab, turn(tab, site, channel)))
                time.sleep(PAUSE_SECONDS)
            for step in visits[0]:
                taken = np.array([1000 * visit[step] for visit in visits])
                found |= spread(f"pages_{way}{kind}_{step}_ms", taken)
    return found


def _figures_of_next(tab: Any, site: Site, channel: int) -> dict[str, float]:
    """Neurons never seen, by pressing Next after looking at the one before for a while; the first
    two, from which it can be told where somebody goes, are not counted."""
    _wait(tab, _turn(tab, site, channel))
    visits = []
    for _ in range(1 + TURNS):
        visits.append(_wait(tab, _press(tab, "Next")))
        time.sleep(READING_SECONDS)
    found: dict[str, float] = {}
    for step in visits[0]:
        taken = np.array([1000 * visit[step] for visit in visits[1:]])
        found |= spread(f"pages_next_{step}_ms", taken)
    return found


def _press(tab: Any, button: str) -> float:
    """Press a button that leads to another neuron; when that was."""
    _mark_cards(tab)
    start = time.perf_counter()
    tab.get_by_role("button", name=button, exact=True).click()
    return start


def _open(tab: Any, site: Site, channel: int) -> float:
    """Open the address of a neuron; when that was."""
    start = time.perf_counter()
    tab.goto(site.neuron(channel))
    return start


def _turn(tab: Any, site: Site, channel: int) -> float:
    """Type the number of a neuron into the open page; when that was."""
    _mark_cards(tab)
    number = tab.get_by_label("Neuron", exact=True)
    number.fill(str(channel))
    start = time.perf_counter()
    number.press("Enter")
    return start


def _mark_cards(tab: Any) -> None:
    """Mark the cards of a neuron, so that they are not taken for those of the next."""
    tab.locator(".card").evaluate_all("cards => cards.forEach(card => card.dataset.old = '')")


def _wait(tab: Any, start: float) -> dict[str, float]:
    """Seconds from ``start`` until each of the steps."""
    found = {}
    _until(tab, SHOWN.format("References"))
    for name, step in STEPS.items():
        _until(tab, step)
        found[name] = time.perf_counter() - start
    return found


def _until(tab: Any, holds: str) -> None:
    """Wait for something to hold, which the browser looks at before it draws: waiting for an
    element is up to half a second late, as Playwright looks for it more and more seldom."""
    tab.wait_for_function(f"() => {{ {ALL} return {holds}; }}")


def _cache(folder: Path) -> Path:
    """An empty cache that shares this machine's pictures and scans."""
    own = load_settings().cache_dir
    folder.mkdir()
    for name in ("data", "scans"):
        (own / name).mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(own / name)
    return folder


def _usable(site: Site) -> np.ndarray:
    """Neurons that have all their references; scans what it must."""
    asker = Asker("benchmark", "benchmark")
    _answer(lambda: site.backend.scan(DEMO.name, [LOWER, LAYER], asker))
    table = _answer(lambda: site.backend.table(DEMO.name, LAYER, asker))
    pictures = len(_answer(lambda: site.backend.images(DEMO.name, asker)))
    return np.flatnonzero(table.density * pictures >= 1.5 * REFERENCES)


def _in_a_row(many: np.ndarray, others: np.ndarray) -> int | None:
    """The first of as many neurons as are stepped through, one after the other, of ``many`` but
    the ``others``; None where there are no such neurons."""
    usable = set(many.tolist()) - set(others.tolist())
    runs = (range(first, first + 2 + TURNS) for first in sorted(usable))
    return next((run.start for run in runs if usable.issuperset(run)), None)


def _answer(ask: Callable[[], Any]) -> Any:
    while isinstance(answer := ask(), Status):
        if answer.state == "failed":
            raise RuntimeError(answer.message)
        time.sleep(0.1)
    return answer


@contextmanager
def _serving(folder: Path) -> Iterator[Site]:
    own = {"EXPLORER_CACHE_DIR": str(folder)}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EXPLORER_")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "explorer", "serve", "--port", str(port)]
    start = time.perf_counter()
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=HOME, env=kept | own, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        _listening(f"{url}/_stcore/health", server, folder / "server.log")
        yield Site(url, Backend(load_settings(own)), start)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def _listening(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    while server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()  # noqa: S310
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"The server ended: {log.read_text()}")
