"""The Surgery page's end: the edited network to download, and the command that makes it."""

from __future__ import annotations

from pathlib import PurePosixPath

import streamlit as st

from explorer.operations import RULE, Operation, renamed
from explorer.records import ImageSet, NetworkInfo, Status
from explorer.ui.places import Look
from explorer.ui.session import asker, backend
from explorer.ui.waiting import waiting

LARGEST_DOWNLOAD = 200_000_000


def files(here: Look, network: NetworkInfo, listed: list[Operation]) -> None:
    """The edited network to download, and the same from the command line."""
    st.subheader("Keep it", anchor=False)
    if network.parameters * 4 > LARGEST_DOWNLOAD:
        st.caption("This network is too large to download here: use the command line.")
    elif st.toggle("Prepare the files", key="prepare"):
        _downloads(here, listed)
    st.code(command(here, listed), language="shell")
    st.caption(
        "As a workspace: weights = “edits:FILE.json”, with both files in one folder; the new "
        "channels are then browsed as layer PATH.split. docs/surgery.md says how PyTorch alone "
        "loads it."
    )


def _downloads(here: Look, listed: list[Operation]) -> None:
    found = backend().surgery.edited(here.ws, listed, asker())
    if isinstance(found, Status):
        waiting(found, brief=True)
        return
    stem = PurePosixPath(f"{here.ws}-edited").name
    with st.container(horizontal=True, gap="small"):
        st.download_button(
            f"{stem}.safetensors · {found.weights.size / 1e6:.1f} MB",
            found.weights.tobytes(),
            f"{stem}.safetensors",
            "application/octet-stream",
            icon=":material/download:",
            on_click="ignore",
        )
        st.download_button(
            f"{stem}.json",
            renamed(found, f"{stem}.safetensors"),
            f"{stem}.json",
            "application/json",
            icon=":material/download:",
            on_click="ignore",
        )


def command(here: Look, listed: list[Operation]) -> str:
    """The command that makes the same file, one per kind of operation."""
    lines = []
    for each in listed:
        images = here.images
        assert isinstance(images, ImageSet)
        if each.classes:
            groups = ("|".join(images.label_names[n] for n in group) for group in each.classes)
            concepts = "--classes " + " ".join(f"'{group}'" for group in groups)
        else:
            concepts = f"--split {each.method} --k {each.k}"
        rho = f" --rho {each.rho:g}" if each.rho else ""
        rule = "" if each.rule == RULE else f" --rule {each.rule}"
        lines.append(
            f"python -m explorer surgery {each.neuron} --workspace {here.ws} {concepts}{rule}{rho} "
            "-o edited.json"
        )
    return "\n".join(lines)
