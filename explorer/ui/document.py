"""What the address of a page is answered with: Streamlit's document, told where the server is.

An address does not say which part of it names a page. So Streamlit asks for a server below the
page first, and waits a tenth of a second before it asks beside it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]

HEAD = b"<head>"
BESIDE = b'<script>window.__streamlit={BACKEND_BASE_URL:new URL(".",location).href}</script>'
"""Streamlit's own setting of where its server is: beside the page."""
CHANGED = (b"content-length", b"etag", b"last-modified")
"""Headers that tell of Streamlit's document alone."""


class Document:
    """Passes every request on; the document at the address of one of the ``pages`` says that the
    server is beside it."""

    def __init__(
        self, app: Callable[[Scope, Any, Any], Awaitable[None]], pages: Collection[str]
    ) -> None:
        self._app = app
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        asked = scope["type"] == "http" and scope["method"] == "GET"
        if asked and scope["path"].rpartition("/")[2] in self._pages:
            # What is compressed cannot be told anything.
            plain = [each for each in scope["headers"] if each[0] != b"accept-encoding"]
            scope, send = {**scope, "headers": plain}, _telling(send)
        await self._app(scope, receive, send)


def _telling(send: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """``send`` for a document that comes in one piece; of other answers nothing is changed."""
    begun: list[Any] = []

    async def tell(message: Any) -> None:
        if message["type"] == "http.response.start":
            begun.append(message)
            return
        if begun:
            start, body = begun.pop(), message.get("body", b"")
            if start["status"] == 200 and HEAD in body and not message.get("more_body"):
                body = body.replace(HEAD, HEAD + BESIDE, 1)
                message = {**message, "body": body}
                kept = [each for each in start["headers"] if each[0].lower() not in CHANGED]
                length = (b"content-length", str(len(body)).encode())
                start = {**start, "headers": [*kept, length]}
            await send(start)
        await send(message)

    return tell
