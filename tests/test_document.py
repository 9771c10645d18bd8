"""The document at a page's address tells the browser where the server is; all else is passed on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from explorer.ui.document import BESIDE, Document

HTML = b"<!DOCTYPE html><html><head><title>Pages</title></head></html>"


def answer(path: str, method: str = "GET", status: int = 200, html: bytes = HTML) -> list[Any]:
    """What a site whose one page is called Neuron sends."""
    sent: list[Any] = []

    async def site(scope: Any, receive: Any, send: Any) -> None:
        zipped = (b"accept-encoding", b"gzip") in scope["headers"]
        headers = [
            (b"content-length", b"%d" % len(html)),
            (b"etag", b"1"),
            (b"x-zip", b"%d" % zipped),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": html})

    async def send(message: Any) -> None:
        sent.append(message)

    about = {"type": "http", "method": method, "path": path}
    scope = {**about, "headers": [(b"accept-encoding", b"gzip"), (b"host", b"here")]}
    asyncio.run(Document(site, {"Neuron"})(scope, None, send))
    return sent


@pytest.mark.parametrize("path", ["/Neuron", "/behind/a/proxy/Neuron"])
def test_a_page_says_that_the_server_is_beside_it(path: str) -> None:
    start, body = answer(path)
    assert body["body"] == HTML.replace(b"<head>", b"<head>" + BESIDE)
    headers = dict(start["headers"])
    assert int(headers[b"content-length"]) == len(body["body"])
    assert b"etag" not in headers  # it is that of another document
    assert headers[b"x-zip"] == b"0"


@pytest.mark.parametrize("path", ["/", "/Other", "/Neuron/", "/static/js/Neuron.js"])
def test_other_addresses_are_left_alone(path: str) -> None:
    start, body = answer(path)
    assert body["body"] == HTML
    assert dict(start["headers"])[b"etag"] == b"1"
    assert dict(start["headers"])[b"x-zip"] == b"1"


@pytest.mark.parametrize(
    "given", [{"method": "HEAD", "html": b""}, {"status": 304, "html": b""}, {"status": 206}]
)
def test_what_is_no_whole_document_stays_as_it_is(given: dict[str, Any]) -> None:
    start, body = answer("/Neuron", **given)
    assert body["body"] == given.get("html", HTML)
    assert dict(start["headers"])[b"etag"] == b"1"
