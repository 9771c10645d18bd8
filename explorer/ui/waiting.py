"""What is under way: progress, place in the queue, time left, Cancel; and what failed, Retry."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import streamlit as st

from explorer.records import Status
from explorer.ui.session import asker, backend, plain

OVER = ("done", "failed", "cancelled")

SOON, OFTEN, SELDOM = 3.0, 0.2, 1.0
"""For so many seconds it is asked so often, in seconds, how far a job is; then so seldom, and of
one that waits for others, of this page or before it, all the time: each time costs the browser as
much as a click."""

PATIENCE, GLANCE = 0.5, 0.02
"""For so many seconds a page holds its breath for what comes next, looking so often."""

T = TypeVar("T")


def soon(ask: Callable[[], T | Status]) -> T | Status:
    """What is asked for, if it comes within a moment: a page that shows the answer at once is there
    sooner, and calmer, than one that first shows that it waits."""
    answer, end = ask(), time.monotonic() + PATIENCE
    while isinstance(answer, Status) and answer.place <= 1 and time.monotonic() < end:
        status = backend().status(answer.key, asker())
        if status is None or status.state in OVER:
            return ask()
        time.sleep(GLANCE)
    return answer


def waiting(status: Status, *, brief: bool = False) -> None:
    """Show one job until it is over, then run the page again. ``brief`` takes one line."""
    if status.state == "done":
        st.rerun()
    shown = st.session_state.setdefault("shown", set())
    if status.key in shown:
        if not brief:
            st.caption(f"Waits for: {plain(status.title)}")
        return
    due = status.place == 0 or (status.place == 1 and not shown)
    shown.add(status.key)
    if status.state in OVER:
        _over(status)
    elif brief:
        _follow(status, brief, due)
    else:
        with st.container(border=True):
            _follow(status, brief, due)


def left(seconds: float | None) -> str:
    """Time left in words, "" when it cannot be told."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{max(1, round(seconds))} s left"
    return f"{round(seconds / 60)} min left" if seconds < 5400 else f"{seconds / 3600:.1f} h left"


def progress_text(status: Status) -> str:
    """One line on a job: what, how far, how long."""
    if status.ahead:
        return f"**{plain(status.title)}** · before anybody asks"
    if status.state == "waiting":
        ahead = f"{status.place - 1} before it" if status.place > 1 else "next in the queue"
        return f"**{plain(status.title)}** · waiting, {ahead}"
    parts = (f"**{plain(status.title)}**", plain(status.message), left(status.eta))
    return " · ".join(part for part in parts if part)


def _follow(status: Status, brief: bool, due: bool) -> None:
    """Ask again and again how far the job is; the browser stops asking when its tab closes. Short
    waits for what is ``due`` are watched closely, because it may come any moment."""
    key = status.key
    begun = st.session_state.setdefault("waits", {}).setdefault(key, time.monotonic())
    often = due and time.monotonic() - begun < SOON
    st.fragment(_poll, run_every=OFTEN if often else SELDOM)(key, brief, begun, often, _there(key))


def _there(key: str) -> int:
    """How many pictures of an answer there are before all of it is."""
    begun = backend().begun(key)
    return 0 if begun is None else len(begun.index)


def _poll(key: str, brief: bool, begun: float, often: bool, shown: int) -> None:
    """``shown``: how many pictures of the answer the page shows already."""
    status = backend().status(key, asker())
    if status is None or status.state in OVER:
        st.session_state["waits"].pop(key, None)
        st.rerun()
    too_often = often and time.monotonic() - begun > SOON
    if too_often or _there(key) > shown:
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.progress(status.fraction, text=progress_text(status))
        st.button(
            "Cancel",
            key=f"cancel-{key}",
            type="tertiary" if brief else "secondary",
            on_click=backend().cancel,
            args=(key, asker()),
        )


def _over(status: Status) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        if status.state == "failed":
            st.error(plain(status.message), icon=":material/error:")
        else:
            st.info(f"{plain(status.title)}: cancelled.", icon=":material/block:")
        st.button(
            "Retry",
            key=f"retry-{status.key}",
            icon=":material/refresh:",
            on_click=backend().retry,
            args=(status.key, asker()),
        )
