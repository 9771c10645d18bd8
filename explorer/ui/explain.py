"""The Explain page: what a signal means, how well that predicts unseen pictures, and where in
its range it matters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from explorer.concepts import lists
from explorer.explaining import LABELS, LIST, Concepts, ExplainQuestion
from explorer.records import Explanation, Status
from explorer.ui import address, explain_plots, pickers, subject
from explorer.ui.gallery import Card, gallery, sources
from explorer.ui.plots import tone
from explorer.ui.session import asker, backend, plain, section
from explorer.ui.subject import Subject
from explorer.ui.waiting import waiting

PLOT = {"displayModeBar": False}
CONCEPTS = {LIST: "Words", LABELS: "Labels"}
POOLED = {"mean": "Mean", "max": "Maximum"}
SEPARATOR = ","


def controls(about: Subject) -> ExplainQuestion:
    """What to explain with, as the address says."""
    mode = pickers.segments("concepts", "Concepts", CONCEPTS, LIST)
    pool = pickers.segments("pool", "Signal", POOLED, "mean")
    with st.popover("Search", icon=":material/tune:"):
        longest = address.integer("longest", 10, 1, 30, "length") or 10
        st.slider("Terms at most", 1, 30, **pickers.bind("longest", longest))
        least = address.number("tolerance", 0.02, 0.0, 0.5, "tolerance")
        st.number_input(
            "Each must gain",
            0.0,
            0.5,
            step=0.005,
            format="%.3f",
            help="Correlation on the validation pictures that a further concept must add.",
            **pickers.bind("tolerance", least),
        )
        lowers = address.choice("inhibitory", "False", ["False", "True"]) == "True"
        st.toggle(
            "Inhibitory concepts",
            help="Also propose concepts that lower the signal.",
            **pickers.bind("inhibitory", lowers),
        )
    params = {"length": longest, "tolerance": least, "inhibitory": lowers}
    return ExplainQuestion(about.neuron, Concepts(mode), pool, params)


def notes(found: Explanation) -> None:
    """What must be known before the numbers are believed."""
    if found.notice:
        st.caption(f":material/info: {plain(found.notice)}")
    elif found.embedder == "conse":
        st.caption(
            ":material/info: Words are read by ConSE (approximate), an offline stand-in for CLIP: "
            "it knows nouns well, colours and textures hardly."
        )


def measures(found: Explanation) -> None:
    """How well the explanation predicts pictures that it never saw, and what chance does."""
    test, (single, alone), (frequent, most) = found.test, found.single, found.frequent
    grid = st.grid(5, min_column_width=120, gap="xsmall", border=True)
    for label, value, below, help in (
        (
            "Test correlation ↑",
            test.value,
            f"{test.low:.2f} to {test.high:.2f}",
            f"On {test.n:,} pictures never seen by the fit, with its 95 % interval.",
        ),
        (
            "Validation",
            found.validation,
            f"{len(found.terms)} term{'' if len(found.terms) == 1 else 's'}",
            "Correlation on the pictures that chose the terms: flattering by design.",
        ),
        (
            "Chance",
            found.null,
            f"± {found.null_sd:.3f}",
            "The same search on shuffled signals: mean and spread of its test correlation.",
        ),
        (
            "Best single",
            alone,
            plain(single, 40),
            f"{plain(single)}: by itself best on the validation pictures.",
        ),
        (
            "Most frequent",
            most,
            plain(frequent, 40),
            f"{plain(frequent)} responds most over the training pictures.",
        ),
    ):
        shown = f"{value:.3f}"
        grid.metric(label, shown, below, delta_color="off", delta_arrow="off", help=help)


def terms(found: Explanation) -> None:
    """The terms as signed bars, with what they are added to."""
    with st.container(border=True):
        st.subheader("What it means", anchor=False)
        st.plotly_chart(
            explain_plots.bars(found), config=PLOT, key="terms", alt="Weights of the concepts"
        )
        train, validation, _ = found.pictures
        st.caption(
            f"activation ≈ {found.bias:.3g} + Σ weight × P(concept) · searched "
            f"{found.considered:,} concepts · fitted on {train:,} pictures, chosen on "
            f"{validation:,}"
            + (f" · {found.left_out:,} pictures left out" if found.left_out else "")
        )


def prediction(about: Subject, found: Explanation) -> None:
    """Predicted against actual, a point for each test picture."""
    with st.container(border=True):
        st.subheader("Predicted against actual", anchor=False)
        drawn = explain_plots.scatter(about.ws, about.images, found, subject.pick, "scatter")
        st.caption(f"{drawn:,} of {found.test.n:,} test pictures; point at one to see it.")


def residuals(about: Subject, found: Explanation) -> None:
    """The test pictures that are predicted most wrongly."""
    over, under = explain_plots.extremes(found)
    for title, colour, places, key in (
        ("Predicted too high", "#f59e0b", over, "over"),
        ("Predicted too low", "#10b981", under, "under"),
    ):
        with st.container(border=True):
            st.subheader(title, anchor=False)
            _gallery(about, found, places, colour, key, title)


def _gallery(
    about: Subject, found: Explanation, places: np.ndarray, colour: str, key: str, title: str
) -> None:
    index = found.index[places]
    cards = []
    for at, source in zip(places.tolist(), sources(about.ws, index), strict=True):
        image = int(found.index[at])
        label = about.images.label(image)
        off = float(found.predicted[at] - found.actual[at])
        said = f"predicted {found.predicted[at]:.2f}, actual {found.actual[at]:.2f}"
        cards.append(
            Card(
                image,
                source,
                f"{label or about.images.paths[image]}, {said}",
                label,
                f"{off:+.2f}",
                colour=colour,
            )
        )
    gallery(cards, key=key, name=title, on_click=subject.pick)


def own_words(about: Subject, question: ExplainQuestion, found: Explanation | None) -> None:
    """Concepts that the person writes, fitted and scored at once."""
    with st.container(border=True):
        st.subheader("Your own words", anchor=False)
        text = address.text("typed")
        st.text_input(
            "Concepts, with commas between them",
            max_chars=address.LONGEST,
            placeholder="dog, round, green leaves",
            **pickers.bind("typed", text),
        )
        if not text.strip():
            st.caption("Write what you believe the neuron responds to: weights are fitted for you.")
            return
        with section():
            words = lists.read(text.replace(SEPARATOR, "\n"))
            answer = backend().explanations.explanation(replace(question, typed=words), asker())
            if isinstance(answer, Status):
                waiting(answer, brief=True)
                return
            grid = st.grid(2, min_column_width=120, gap="xsmall")
            grid.metric("Test correlation ↑", f"{answer.test.value:.3f}", help=interval(answer))
            if found is not None:
                grid.metric("Against the search", f"{answer.test.value - found.test.value:+.3f}")
            st.plotly_chart(
                explain_plots.bars(answer, tone(2)),
                config=PLOT,
                key="own-terms",
                alt="Weights of your concepts",
            )


def interval(found: Explanation) -> str:
    """How sure a test correlation is."""
    test = found.test
    return f"95 % interval {test.low:.2f} to {test.high:.2f} on {test.n:,} unseen pictures."
