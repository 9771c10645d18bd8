"""What every page shares: the backend, and who asks."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from explorer.backend import Asker, Backend
from explorer.records import ExplorerError
from explorer.serve import ensure_worker
from explorer.settings import load_settings


@st.cache_resource(show_spinner=False)
def backend() -> Backend:
    """The one Backend of this process; makes sure that a worker is alive to compute."""
    settings = load_settings()
    if not settings.read_only:
        ensure_worker(settings)
    return Backend(settings)


def asker() -> Asker:
    """This browser session, and what it looks at now."""
    if "owner" not in st.session_state:
        st.session_state["owner"] = secrets.token_hex(8)
    return Asker(st.session_state["owner"], st.session_state.get("scope", ""))


def look_at(*parts: object) -> None:
    """Say what this session looks at from now on: questions about other things are withdrawn."""
    st.session_state["scope"] = ":".join(map(str, parts))


def plain(text: object, longest: int = 300) -> str:
    """Text that Markdown shows as it is: nothing in a file name or a link becomes markup."""
    short = str(text) if len(str(text)) <= longest else f"{str(text)[: longest - 1]}…"
    words = " ".join(short.split())
    return "".join(
        f"\\{letter}" if letter in r"\`*_{}[]()<>#+-.!|$:~&" else letter for letter in words
    )


@contextmanager
def section() -> Iterator[None]:
    """A part of a page: what cannot be shown is said in one sentence, and the rest goes on."""
    try:
        yield
    except ExplorerError as error:
        st.warning(plain(error), icon=":material/info:")
