"""Where in its range a neuron matters, on the Explain page."""

from __future__ import annotations

import numpy as np
import streamlit as st

from explorer.explaining import ExplainQuestion
from explorer.records import RangeAnalysis, Status
from explorer.ui import address, explain_plots
from explorer.ui.explain import PLOT
from explorer.ui.gallery import strips
from explorer.ui.session import asker, backend, plain
from explorer.ui.subject import Subject
from explorer.ui.tables import Column, Row, table
from explorer.ui.waiting import waiting

RANGE_COLUMNS = (
    Column("range", "Activation"),
    Column("pictures", "Pictures", "number"),
    Column("effect", "Effect", "number"),
    Column("examples", "Highest of them", "pictures"),
    Column("wins", "Concepts that win here", "wide"),
)


def ranges(about: Subject, question: ExplainQuestion) -> None:
    """Where in its range the neuron matters; measured when asked for."""
    with st.container(border=True):
        st.subheader("Where in its range it matters", anchor=False)
        wanted = address.choice("ranges", "0", ["0", "1"]) == "1"
        if not wanted:
            st.caption(
                "Top pictures alone mislead: see what wins in each part of the range, and where "
                "taking the channel out changes the network's answers."
            )
            st.button(
                "Measure",
                icon=":material/stacked_bar_chart:",
                on_click=address.put,
                kwargs={"ranges": "1"},
            )
            return
        answer = backend().explanations.ranges(
            about.neuron, question.concepts, asker(), question.pool
        )
        if isinstance(answer, Status):
            waiting(answer, brief=True)
            return
        halves = st.grid(2, min_column_width=400)
        with halves.cell():
            st.plotly_chart(
                explain_plots.ranges(answer),
                config=PLOT,
                key="ranges",
                alt="Pictures and share of the effect by activation",
            )
            _tops(answer)
        with halves.cell():
            _steps(about, answer)


def _steps(about: Subject, found: RangeAnalysis) -> None:
    """Each step of the range, the highest first."""
    steps = range(len(found.counts))[::-1]
    seen = strips(about.ws, about.images, {step: found.examples[step] for step in steps})
    rows = [
        Row(
            {
                "range": f"{found.edges[step]:.2f} – {found.edges[step + 1]:.2f}",
                "pictures": f"{found.counts[step]:,}",
                "effect": f"{share:.1%}" if np.isfinite(share) else "–",
                "examples": seen[step],
                "wins": ", ".join(name for name, _ in found.concepts[step][:3]) or "–",
            }
        )
        for step, share in zip(steps, found.share[::-1], strict=True)
    ]
    table(RANGE_COLUMNS, rows, key="range-table", name="Steps of the range", size=34)


def _tops(found: RangeAnalysis) -> None:
    tops = [
        f"{part:.3g} % of pictures: {share:.1%}"
        for part, share in zip(100 * found.quantiles, found.top, strict=True)
        if np.isfinite(share)
    ]
    st.caption(
        plain(
            f"Share of the effect that the highest pictures have. {' · '.join(tops)}. Effect: half "
            "by cross-entropy, half by answers, of the network's own first answer when the "
            f"channel is set to zero; {found.measured:,} pictures measured.",
            600,
        )
    )
