"""The web entry: ``uvicorn explorer.ui.web:app`` serves the pages with low latency."""

from __future__ import annotations

import importlib
import logging
import threading

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

from explorer.settings import HOME
from explorer.ui.ahead import Ahead
from explorer.ui.document import Document

# A folder called pages/ beside app.py would otherwise make the first deep link to a fresh server
# run that page without app.py, so without sidebar and navigation.
PagesManager.uses_pages_directory = False

DRAWN_WITH = tuple(f"explorer.ui.{name}" for name in ("frame", "neuron", "virtual", "rail"))
"""What pages are drawn with: loaded while the server starts, not when somebody looks."""

FAULT = "Something went wrong here, and it is a fault of ours: reload the page, or see the log."


def apologise(error: Exception) -> bool:
    """Log an error that no page handled and show one sentence instead of its traceback."""
    logging.getLogger(__name__).error("Unhandled error in a page", exc_info=error)
    st.error(FAULT)
    return True


def load() -> None:
    """Import what the first page would."""
    for name in DRAWN_WITH:
        importlib.import_module(name)


PAGES = {path.stem.partition("_")[2] for path in (HOME / "pages").glob("*.py")}
"""What the addresses of pages end with, as Streamlit makes it of their files' names."""

app = Document(Ahead(st.App(HOME / "app.py", on_script_error=apologise)), PAGES)
threading.Thread(target=load, name="load", daemon=True).start()
