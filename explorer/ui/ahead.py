"""Asking ahead: what an address is about is asked while the browser still loads the page."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl

from explorer.backend import Asker, SplitQuestion
from explorer.records import ExplorerError, Neuron, ReferenceQuery, References, Status
from explorer.ui.session import backend

NEEDED = {"ws", "layer", "neuron"}
KNOWN = NEEDED | {"by", "range", "view", "page", "picture", "all", "a", "b"}
"""Names that an address needs and may have: with any other, the page knows better what it asks."""

Scope = MutableMapping[str, Any]


class Ahead:
    """Passes every request on; of the address of a neuron's page, files the questions that the page
    will ask first, as one who looks at it would. Nothing is scanned for an address alone."""

    def __init__(self, app: Callable[[Scope, Any, Any], Awaitable[None]]) -> None:
        self._app = app
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        asked = scope["type"] == "http" and scope["method"] == "GET"
        if asked and scope["path"].endswith("/Neuron"):
            self._pool.submit(ask, scope["query_string"].decode("latin-1"))
        await self._app(scope, receive, send)


def ask(query: str) -> None:
    """Ask for the split, then for the crops, of the neuron that a query string names."""
    given = dict(parse_qsl(query))
    if not given.keys() >= NEEDED or given.keys() - KNOWN:
        return
    asker = Asker(secrets.token_hex(8), "ahead")
    with suppress(ExplorerError, ValueError):  # the page will say what is wrong
        neuron = Neuron(given["ws"], given["layer"], int(given["neuron"]))
        wanted = ReferenceQuery(by=given.get("by", "max"))
        scanned = backend().scanned(neuron.workspace, asker)
        if isinstance(scanned, Status) or scanned.get(neuron.layer) != 1:
            return
        if isinstance(backend().references(neuron, wanted, asker), References):
            backend().split(SplitQuestion(neuron, references=wanted), asker)
            if given.get("view") != "whole":
                backend().crops(neuron, wanted, asker)
