"""What a person keeps of a comparison: the command that makes the same numbers, and files."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

MEDIA = {"csv": "text/csv", "json": "application/json"}


def keep(command: str, files: Mapping[str, tuple[str, str]]) -> None:
    """The command, and a button for each of ``files``: by label, a file's name and its text."""
    st.code(command, language="shell", wrap_lines=True)
    with st.container(horizontal=True):
        for label, (name, text) in files.items():
            kind = name.rpartition(".")[2]
            st.download_button(
                f"{label} ({kind.upper()})",
                text,
                name,
                MEDIA[kind],
                icon=":material/download:",
                on_click="ignore",
            )
