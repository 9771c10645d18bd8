"""The pages in a real Chromium, served as people get them: web process, worker, small network."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny import LAYER, LOWER, NETWORK, draw_pictures, write_config

from explorer.jobs import Jobs
from explorer.settings import HOME

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
SETTLED = (
    "[data-testid=stApp][data-test-script-state=notRunning]"
    "[data-test-connection-state=CONNECTED]:not(:has([data-stale=true]))"
)
EDITED = "tiny-edited"
"""How the page names an edited network's files; the workspace that reads them is there from the
start."""
PARTS = "layer4.0.conv1.split"
PATIENCE = 90_000
"""Milliseconds that an answer may take on a busy machine."""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed"),
]


@dataclass(frozen=True)
class Server:
    """A running server and the folder of its cache."""

    url: str
    process: subprocess.Popen[bytes]
    cache: Path

    @contextmanager
    def worker_asleep(self) -> Iterator[None]:
        """Nothing is computed in here: what is asked waits in the queue."""
        children = Path(f"/proc/{self.process.pid}").glob("task/*/children")
        (worker,) = {int(child) for each in children for child in each.read_text().split()}
        os.kill(worker, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(worker, signal.SIGCONT)


@pytest.fixture(scope="module")
def site(server: Server) -> str:
    return server.url


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A fresh server over an empty cache, with its worker."""
    folder = tmp_path_factory.mktemp("site")
    pictures = draw_pictures(folder / "pictures", each=12)
    config = write_config(folder, pictures, (LAYER, LOWER))
    more = f'name = "edited"\nnetwork = "{NETWORK}"\nweights = "edits:{folder}/{EDITED}.json"\n'
    with config.open("a") as file:
        file.write(f'[[workspace]]\n{more}images = "{pictures}"\nlayers = ["{PARTS}"]\n')
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EXPLORER_")}
    own = {"EXPLORER_CONFIG": str(config), "EXPLORER_CACHE_DIR": str(folder / "cache")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "explorer", "serve", "--port", str(port)],
            cwd=HOME,
            env=kept | own,
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _await(f"{url}/_stcore/health", process, folder / "server.log")
        yield Server(url, process, folder / "cache")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _await(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=1).close()  # noqa: S310
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser: Any, site: str) -> Iterator[Any]:
    """A page of a new browser session; fails on errors and on requests to anybody else."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))
    page.on("console", lambda said: _note_console(said, wrong))
    page.on("request", lambda asked: _note_request(asked.url, site, wrong))
    yield page
    context.close()
    assert not wrong, wrong


def _note_console(said: Any, wrong: list[str]) -> None:
    if said.type == "error":
        wrong.append(said.text)


def _note_request(url: str, site: str, wrong: list[str]) -> None:
    if not url.startswith((site, site.replace("http", "ws"), "data:", "blob:")):
        wrong.append(f"foreign request {url}")


def neuron(site: str, channel: int = 3, **query: str) -> str:
    more = "".join(f"&{name}={value}" for name, value in query.items())
    return f"{site}/Neuron?ws=tiny&layer={LAYER}&neuron={channel}&lower={LOWER}{more}"


def settled(tab: Any) -> None:
    tab.wait_for_selector(SETTLED, state="attached")


def complete(tab: Any, virtual: int) -> None:
    """Wait until the page shows that many virtual neurons and every other part."""
    for letter in "ABCDEFGH"[:virtual]:
        expect(tab.get_by_label(f"Pictures of virtual neuron {letter}")).to_be_visible()
    expect(tab.get_by_text("Correlation ↑")).to_be_visible()
    expect(tab.get_by_text(re.compile("^UMAP of the rows"))).to_be_visible()
    settled(tab)


def test_first_request_to_a_fresh_server_is_a_deep_link(tab: Any, site: str) -> None:
    tab.goto(neuron(site, 5, k="2"))
    expect(tab.get_by_role("heading", name="Neuron 5", exact=True)).to_be_visible()
    sidebar = tab.get_by_test_id("stSidebar")
    for page in ("Home", "Neurons", "Neuron", "About"):
        expect(sidebar.get_by_role("link", name=page, exact=True)).to_be_visible()
    complete(tab, 2)
    assert "neuron=5" in tab.url
    assert "k=2" in tab.url


def test_pages_of_references_are_numbered_and_next_leads_on(tab: Any, site: str) -> None:
    tab.goto(neuron(site, 3, k="2"))
    complete(tab, 2)
    tab.get_by_role("button", name="Page 2", exact=True).click()
    expect(tab).to_have_url(re.compile("page=2"))
    for channel in (4, 5):
        tab.get_by_role("button", name="Next", exact=True).click()
        expect(tab.get_by_role("heading", name=f"Neuron {channel}", exact=True)).to_be_visible()
        complete(tab, 2)
        expect(tab.get_by_role("button", name="Page 2", exact=True)).to_be_visible()
    assert "page=2" not in tab.url


def test_pick_a_neuron_change_k_and_come_back(tab: Any, site: str) -> None:
    tab.goto(f"{site}/Neurons?ws=tiny&layer={LAYER}")
    rows = tab.get_by_role("button", name=re.compile(f"^Open neuron {LAYER}:"))
    chosen = rows.nth(1).text_content()
    rows.nth(1).click()
    expect(tab.get_by_role("heading", name=f"Neuron {chosen}", exact=True)).to_be_visible()
    expect(tab).to_have_url(re.compile(f"neuron={chosen}"))
    tab.goto(neuron(site, 3, k="2"))
    complete(tab, 2)
    tab.get_by_role("radio", name="3", exact=True).click()
    complete(tab, 3)
    expect(tab).to_have_url(re.compile("k=3"))
    tab.get_by_role("link", name="About", exact=True).click()
    expect(tab.get_by_role("heading", name="About")).to_be_visible()
    tab.get_by_role("link", name="Neuron", exact=True).click()
    complete(tab, 3)
    tab.reload()
    complete(tab, 3)
    assert "neuron=3" in tab.url
    other = tab.context.new_page()
    other.goto(tab.url)
    complete(other, 3)


def test_back_and_forward_move_between_neurons(tab: Any, site: str) -> None:
    tab.goto(neuron(site, 3, k="2"))
    complete(tab, 2)
    number = tab.get_by_role("spinbutton", name="Neuron")
    number.fill("6")
    number.press("Enter")
    expect(tab.get_by_role("heading", name="Neuron 6", exact=True)).to_be_visible()
    expect(tab).to_have_url(re.compile("neuron=6"))
    tab.go_back()
    expect(tab.get_by_role("heading", name="Neuron 3", exact=True)).to_be_visible()
    tab.go_forward()
    expect(tab.get_by_role("heading", name="Neuron 6", exact=True)).to_be_visible()
    settled(tab)


def test_a_picture_is_picked_with_the_keyboard(tab: Any, site: str) -> None:
    tab.goto(neuron(site, 3, k="2"))
    complete(tab, 2)
    cards = tab.get_by_label("References", exact=True).get_by_role("button")
    cards.first.focus()
    tab.keyboard.press("ArrowRight")
    expect(cards.nth(1)).to_be_focused()
    tab.keyboard.press("Enter")
    expect(cards.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(tab.get_by_label("The picked picture")).to_be_visible()
    expect(tab).to_have_url(re.compile("picture="))
    tab.get_by_role("button", name="Close").click()
    expect(tab.get_by_label("The picked picture")).to_have_count(0)


def test_a_lasso_on_the_map_filters_the_galleries(tab: Any, site: str) -> None:
    tab.goto(neuron(site, 3, k="2"))
    complete(tab, 2)
    said = tab.get_by_text(re.compile(r"^\d+ of \d+ references"))
    every = said.text_content()
    area = tab.get_by_role("group", name="References on a plane")
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    left, top = box["x"] + 2, box["y"] + 2
    right, bottom = left + box["width"] / 2, top + box["height"] - 4
    tab.mouse.move(left, top)
    tab.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top)):
        tab.mouse.move(x, y, steps=8)
    tab.mouse.up()
    again = tab.get_by_role("button", name=re.compile("^.*Show all again"))
    expect(again).to_be_visible()
    expect(said).not_to_have_text(every)
    chosen, total = map(int, re.findall(r"\d+", said.text_content())[:2])
    assert 0 < chosen < total
    again.click()
    expect(again).to_have_count(0)
    expect(said).to_have_text(every)


def test_two_browsers_share_one_computation_and_either_may_leave(
    tab: Any, browser: Any, server: Server
) -> None:
    tab.goto(neuron(server.url, 3, k="2"))
    complete(tab, 2)
    other = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
    with server.worker_asleep():
        for page in (tab, other):
            page.goto(neuron(server.url, 9, k="2"))
            expect(page.get_by_text("Splitting layer4:9")).to_be_visible(timeout=PATIENCE)
        jobs = Jobs(server.cache).active()
        assert len([job for job in jobs if job.title.startswith("Splitting")]) == 1
        panel = other.get_by_test_id("stVerticalBlock").filter(has_text="Splitting layer4:9").last
        panel.get_by_role("button", name="Cancel").click()
        expect(other.get_by_text("cancelled")).to_be_visible(timeout=PATIENCE)
        expect(other.get_by_label("References", exact=True)).to_be_visible()
    complete(tab, 2)
    other.reload()
    complete(other, 2)
    other.context.close()


def test_markup_in_a_link_stays_text(tab: Any, site: str) -> None:
    tab.goto(neuron(site, 3, k="2", view="%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E", by="mean"))
    expect(tab.get_by_text("cannot be used here")).to_be_visible()
    complete(tab, 2)
    assert tab.locator("img[src='x']").count() == 0
    assert "onerror" not in tab.url


@pytest.mark.parametrize("form", ["PDF", "PNG"])
def test_a_figure_is_drawn_and_downloaded(tab: Any, site: str, form: str, tmp_path: Path) -> None:
    tab.goto(neuron(site, 3, k="2"))
    complete(tab, 2)
    tab.get_by_role("button", name="Figure").click()
    tab.get_by_role("radio", name=form, exact=True).click()
    tab.get_by_role("button", name="Draw the figure").click()
    button = tab.get_by_role("button", name=re.compile(f"Download .*[.]{form.lower()}"))
    with tab.expect_download() as download:
        button.click()
    download.value.save_as(tmp_path / "figure")
    start = {"PDF": b"%PDF", "PNG": b"\x89PNG"}[form]
    assert (tmp_path / "figure").read_bytes().startswith(start)


def test_a_click_on_the_tree_parts_concepts_and_the_link_restores_them(tab: Any, site: str) -> None:
    methods = "concept_vectors:smallest=1+random"
    tab.goto(f"{site}/Compare?ws=tiny&layer={LAYER}&neuron=3&k=2&separation=2.5&methods={methods}")
    expect(tab.get_by_text(re.compile("^1 concept;"))).to_be_visible()
    settled(tab)
    tree = tab.get_by_test_id("stPlotlyChart").nth(2)
    join = tree.locator(".scatterlayer .trace").last.locator(".point").first
    join.scroll_into_view_if_needed()
    box = join.bounding_box()
    tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    concepts = tab.get_by_text(re.compile("^2 concepts;"))
    expect(concepts).to_be_visible()
    settled(tab)
    expect(tab).to_have_url(re.compile(r"separation=0\.\d{2,3}(&|$)"))
    other = tab.context.new_page()
    other.goto(tab.url)
    expect(other.get_by_text(concepts.text_content(), exact=True)).to_be_visible()
    settled(other)
    assert other.url == tab.url


def test_a_divided_network_is_downloaded_and_comes_back_as_a_workspace(
    tab: Any, server: Server
) -> None:
    tab.goto(f"{server.url}/Surgery?ws=tiny&layer=layer4.0.act1&neuron=3&groups=0,2&rule=fitted")
    tab.get_by_role("button", name="Divide and judge").click()
    expect(tab.get_by_text("0 of 36", exact=True)).to_be_visible()
    settled(tab)
    tab.get_by_text("Prepare the files").click()
    for ending in ("safetensors", "json"):
        with tab.expect_download() as download:
            tab.get_by_role("button", name=re.compile(rf"{EDITED}[.]{ending}")).click()
        assert download.value.suggested_filename == f"{EDITED}.{ending}"
        download.value.save_as(server.cache.parent / f"{EDITED}.{ending}")
    tab.goto(f"{server.url}/Neurons?ws=edited&layer={PARTS}")
    rows = tab.get_by_role("button", name=re.compile(f"^Open neuron {PARTS}:"))
    expect(rows.first).to_be_visible()
    for part in (3, 96):
        tab.goto(f"{server.url}/Neuron?ws=edited&layer={PARTS}&neuron={part}&method=random&k=2")
        expect(tab.get_by_role("heading", name=f"Neuron {part}", exact=True)).to_be_visible()
        expect(tab.get_by_label("References", exact=True)).to_be_visible()
    settled(tab)
