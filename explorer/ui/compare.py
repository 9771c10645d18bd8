"""The Compare page for one neuron: every method on the same pictures, with the same scores."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from explorer.backend import SplitQuestion
from explorer.methods import variants
from explorer.methods.agreement import agreement, jaccard, match, members
from explorer.records import Alignment, ExplorerError, Score, Split, Status
from explorer.ui import address, charts, choices, concepts, figure, neuron, pickers, subject
from explorer.ui.plots import BADGES, letter
from explorer.ui.session import asker, backend, plain, section
from explorer.ui.subject import Subject
from explorer.ui.tables import Column, Row, table
from explorer.ui.waiting import waiting

MOST = 5
"""Methods side by side."""
FIRST = 6
"""Pictures of a virtual neuron."""
STATIC = {"displayModeBar": False}
JUDGED = {
    "gap": ("Gap ↑", "Between minus within"),
    "correlation": ("Correlation ↑", "Of the method's distances with the judge's"),
    "intra": ("Within ↓", "Mean distance of references of one virtual neuron"),
    "inter": ("Between ↑", "Mean distance of references of different ones"),
}


@dataclass(frozen=True)
class Entry:
    """One method of the page: its text, its title, the question, and how far its answer is (a
    sentence where it has none)."""

    name: str
    title: str
    question: SplitQuestion
    answer: Split | Status | str


def show(about: Subject) -> None:
    """The page."""
    rows = backend().table(about.ws, about.layer.name, asker())
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        neuron.heading(about, rows)
        st.space("stretch")
        neuron.steps(about, rows)
    names, judge = _controls(about)
    entries = [entry for name in names if (entry := _entry(about, name)) is not None]
    splits = [entry for entry in entries if isinstance(entry.answer, Split)]
    _waiting(entries)
    if not splits:
        return
    with section():
        _scores(entries, judge)
    _galleries(about, entries)
    halves = st.grid(2, min_column_width=320)
    with halves.cell(), section():
        _agreement(splits)
    with halves.cell(), section():
        _distances(splits, judge)
    for entry in splits:
        if entry.answer.method == "concept_vectors":
            with section():
                concepts.show(about, entry.title, entry.question, entry.answer)
            break
    _commands(entries, judge)


def _controls(about: Subject) -> tuple[list[str], str]:
    wide = st.grid(3, min_column_width=290)
    with wide.cell(column_span=2):
        names = choices.methods(about.ws, MOST)
    with wide.cell():
        judge = choices.judge(about.ws)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        counts = {str(k): str(k) if k else "Auto" for k in (0, *range(2, 9))}
        pickers.segments("k", "Virtual neurons", counts, "0")
        st.space("stretch")
        pickers.segments("view", "Drawn as", pickers.VIEWS, "crop", pills=True)
        pickers.segments("by", "Ranked by", pickers.MEASURES, "max")
    return names, judge


def _entry(about: Subject, name: str) -> Entry | None:
    """Ask for one method's split; what its text leaves open comes from the address."""
    method, params = variants.parse(name)
    k = int(address.choice("k", "0", [str(each) for each in (0, *range(2, 9))]))
    if variants.takes_k(method) and "k" not in params and k:
        params["k"] = k
    if method.name == "concept_vectors":
        params = concepts.from_address() | params
    question = about.question(method.name, params)
    try:
        answer: Any = backend().split(question, asker())
    except ExplorerError as error:
        answer = str(error)
    if isinstance(answer, Status) and answer.state == "failed" and not answer.fault:
        answer = answer.message
    return Entry(name, choices.title_of(name), question, answer)


def _waiting(entries: Sequence[Entry]) -> None:
    for entry in entries:
        if isinstance(entry.answer, Status):
            waiting(entry.answer, brief=True)
        elif isinstance(entry.answer, str):
            st.warning(f"{plain(entry.title)}: {plain(entry.answer)}", icon=":material/info:")
            if entry.question.method == "concept_vectors":
                concepts.separation(None)


def _scores(entries: Sequence[Entry], judge: str) -> None:
    rows, late = [], []
    judged = ""
    for entry in entries:
        if not isinstance(entry.answer, Split):
            continue
        split = entry.answer
        answer = backend().alignment(entry.question, asker(), judge)
        cells = {
            "method": entry.title,
            "k": str(split.k),
            "sizes": " · ".join(map(str, split.sizes)),
            "silhouette": _number(split.scores.get("silhouette")),
            "stability": _number(split.scores.get("stability")),
        }
        if isinstance(answer, Alignment):
            judged = answer.notice or f"Judged by {answer.title}."
            for name in JUDGED:
                score = getattr(answer, name)
                spread = name in ("gap", "correlation")
                cells[name], cells[f"{name}_null"] = _number(score.value, 3), _null(score, spread)
        else:
            late.append(answer)
        rows.append(Row(cells))
    columns = (
        Column("method", "Method"),
        Column("k", "k", "number", help="Virtual neurons"),
        *(
            column
            for name, (title, help) in JUDGED.items()
            for column in (
                Column(name, title, "number", help=help),
                Column(f"{name}_null", "null", "number", minor=True),
            )
        ),
        Column("sizes", "Sizes", "number", minor=True, help="References of each"),
        Column("silhouette", "Silhouette ↑", "number", minor=True),
        Column("stability", "Stability ↑", "number", minor=True),
    )
    with st.container(border=True):
        st.subheader("Scores", anchor=False)
        table(columns, rows, key="scores", name="Scores of every method")
        st.caption(
            f"{plain(judged, 600)} Nulls: under random labels of the same sizes (for the "
            "correlation: shuffled references), ± standard deviation. Outliers are left out, which "
            "flatters concept vectors."
        )
        for status in late:
            waiting(status, brief=True)


def _number(value: float | None, digits: int = 2) -> str:
    return "—" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def _null(score: Score, spread: bool) -> str:
    if np.isnan(score.value):
        return ""
    text = f"{score.null:.3f}".replace("-0.000", "0.000")
    return f"{text} ± {score.null_sd:.3f}" if spread else text


def _galleries(about: Subject, entries: Sequence[Entry]) -> None:
    """One column per method; virtual neurons that share most pictures stand in one row."""
    shown = [entry for entry in entries if isinstance(entry.answer, Split)]
    rows = match([entry.answer for entry in shown])
    groups = [members(entry.answer) for entry in shown]
    owners = {
        image: row for row, line in enumerate(rows) if line[0] >= 0 for image in groups[0][line[0]]
    }
    st.subheader("The same pictures, divided", anchor=False)
    st.caption(
        f"A row holds virtual neurons that share pictures. Dots: the row to which "
        f"{plain(shown[0].title)} gives a picture."
    )
    grid = st.grid(len(shown), min_column_width=150, wrap=False, gap="small")
    for entry in shown:
        with grid.cell():
            st.markdown(f"**{plain(entry.title)}**")
    for row, line in enumerate(rows):
        first = next(at for at, virtual in enumerate(line) if virtual >= 0)
        anchor = groups[first][line[first]]
        for at in range(len(shown)):
            with grid.cell(), st.container(border=True, height="stretch"):
                if line[at] < 0:
                    st.caption("none alike")
                    continue
                shared = jaccard(anchor, groups[at][line[at]]) if at != first else None
                _cell(about, shown[at], at, row, int(line[at]), shared, owners)


def _cell(
    about: Subject,
    entry: Entry,
    at: int,
    row: int,
    virtual: int,
    shared: float | None,
    owners: dict[int, int],
) -> None:
    split = entry.answer
    mine = np.flatnonzero(split.labels == virtual)
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall"):
        st.badge(letter(row), color=BADGES[row % len(BADGES)])
        alike = " pictures" if shared is None else f" · {shared:.0%} shared"
        st.caption(f"{len(mine)}{alike}")
    subject.show(
        about,
        split.references,
        mine[:FIRST],
        neuron.crops_of(about, split.references.query),
        key=f"cell-{at}-{row}",
        name=f"{entry.title}, virtual neuron {letter(virtual)}",
        owners=owners if len(set(owners.values())) > 1 else {},
    )


def _agreement(splits: Sequence[Entry]) -> None:
    with st.container(border=True):
        st.subheader("Agreement of methods", anchor=False)
        names = [entry.title for entry in splits]
        values = agreement([entry.answer for entry in splits])
        st.plotly_chart(
            charts.matrix(values, names, [str(at + 1) for at in range(len(names))], 0, 280),
            config=STATIC,
            key="agreement",
            alt="Adjusted Rand index of every two methods",
        )
        st.caption(
            "Adjusted Rand index over the references that both have: 1 for the same division, 0 on "
            "average by chance. Columns in the order of rows."
        )


def _distances(splits: Sequence[Entry], judge: str) -> None:
    with st.container(border=True):
        st.subheader("Distances of pairs of pictures", anchor=False)
        titles = {str(at): entry.title for at, entry in enumerate(splits)}
        chosen = splits[int(pickers.segments("pair", "Method", titles, "0", pills=True))]
        answer = backend().studies.distances(chosen.question, asker(), judge)
        if isinstance(answer, Status):
            waiting(answer, brief=True)
            return
        st.plotly_chart(
            charts.distances(answer, chosen.title, "the judge"),
            config=STATIC,
            key="distances",
            alt="Distances of pairs of references for method and judge",
        )
        st.caption("Each point is a pair of references; the correlation is in the table above.")


def _commands(entries: Sequence[Entry], judge: str) -> None:
    with st.expander("The same numbers from the command line", icon=":material/terminal:"):
        for entry in entries:
            command = figure.split_command(entry.question)
            if judge:
                command += f" --embedder {shlex.quote(judge)}"
            st.code(command, language="shell", wrap_lines=True)
