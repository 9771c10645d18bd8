"""The Surgery page's lower part: the list of edits, and how each did."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import streamlit as st
from plotly.subplots import make_subplots

from explorer.operations import Operation
from explorer.records import ImageSet, Incision, PartsAlignment, Status, SurgeryReport
from explorer.ui import surgery
from explorer.ui.gallery import Card, gallery, sources
from explorer.ui.places import Look
from explorer.ui.plots import BADGES, GREY, layout, letter, tone
from explorer.ui.session import asker, backend, plain
from explorer.ui.tables import Column, Row, table
from explorer.ui.waiting import waiting

PLOT = {"displayModeBar": False}


def edits(current: Operation | None) -> list[Operation]:
    """The list of edits with undo, and the one in the form last; what is to be judged."""
    kept = surgery.kept()
    listed = [*kept, current] if current is not None and current not in kept else kept
    if not kept:
        return listed
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown("**Edits**", width="content")
        for number, each in enumerate(kept):
            st.badge(f"{number + 1}. {plain(each.neuron)}", color="gray")
        st.button(
            "Undo the last",
            icon=":material/undo:",
            type="tertiary",
            on_click=surgery.put_edits,
            args=(kept[:-1],),
        )
    return listed


def judged(here: Look, listed: list[Operation]) -> SurgeryReport | None:
    """The report on these edits; a button where it was not asked for."""
    ask = backend().surgery
    found = ask.report(here.ws, listed, asker(), start=False)
    if found is None:
        if st.button(
            "Divide and judge",
            type="primary",
            icon=":material/call_split:",
            help="On real pictures: half of each concept's choose rho, the other half judge",
        ):
            ask.report(here.ws, listed, asker())
            st.rerun()
        return None
    if isinstance(found, Status):
        waiting(found)
        return None
    return found


def keep(current: Operation | None, listed: list[Operation]) -> None:
    """Put the form's operation into the list, to go on with another channel."""
    full = len(listed) > surgery.MOST_EDITS
    if current is not None and current not in surgery.kept() and not full:
        st.button(
            "Keep this edit and go on",
            icon=":material/add:",
            on_click=surgery.put_edits,
            args=(listed,),
        )


def network_measures(found: SurgeryReport) -> None:
    """That the function is unchanged, and what that costs."""
    grid = st.grid(6, min_column_width=120, gap="xsmall", border=True)
    pictures = f"On {found.pictures:,} pictures; the largest logit is {found.scale:.1f}."
    grid.metric(
        "Logits, float32", f"{found.difference:.1e}", help=f"Largest difference. {pictures}"
    )
    grid.metric(
        "Logits, float64", f"{found.difference64:.1e}", help=f"The same in float64. {pictures}"
    )
    grid.metric("First class changed", f"{found.changed} of {found.pictures:,}")
    before, after = found.accuracy
    accuracy = "—" if np.isnan(after[0]) else f"{after[0]:.1%}"
    said = "Of pictures whose label the network knows."
    if not np.isnan(before[0]):
        said += (
            f" Before: {before[0]:.1%}. First five: {before[1]:.1%} before, {after[1]:.1%} after."
        )
    grid.metric("Right, first class", accuracy, help=said)
    for label, (old, new) in (
        ("Parameters", found.parameters),
        ("Multiplications", found.multiplications),
    ):
        grid.metric(label, f"+{(new - old) / old:.2%}", help=f"{old:,} before, {new:,} after.")


def incision(
    here: Look, images: ImageSet, found: Incision, aligned: PartsAlignment, number: int
) -> None:
    """One edit: fractions, densities, pictures of the new channels."""
    edit = found.edit
    st.subheader(f"Channel {edit.channel} of {edit.layer}", anchor=False)
    inputs = ", ".join(
        f"{int((edit.owner == at).sum()):,} {name}"
        for at, name in [
            *((k, f"of {letter(k)}") for k in range(len(edit.concepts))),
            (-1, "shared"),
        ]
    )
    st.markdown(
        " · ".join(
            f":{BADGES[k % len(BADGES)]}-badge[{letter(k)}] {plain(name)}"
            for k, name in enumerate(edit.concepts)
        )
    )
    chosen = "chosen" if len(found.rhos) > 1 else "given"
    st.caption(
        f"{edit.rule} rule, rho {edit.rho:g} ({chosen}) · inputs: {inputs} · judged on "
        f"{int(found.judged.sum()):,} pictures that did not choose it · new channels "
        f"{', '.join(map(str, found.places.tolist()))} of {plain(found.shown)}"
    )
    halves = st.grid(2, min_column_width=330)
    with halves.cell():
        st.markdown("**Where the channel's activation goes**")
        _fractions(found, number)
    with halves.cell():
        st.markdown("**Before and after**")
        st.plotly_chart(
            densities(found),
            config=PLOT,
            key=f"densities-{number}",
            alt="Pictures of each concept by activation of the channel and of each part",
        )
    _galleries(here, images, found, number)
    _alignment(aligned)


def _alignment(found: PartsAlignment) -> None:
    """Whether the parts' highest pictures are more alike than those of the channel."""
    after = found.after
    st.markdown(f"**Are the parts' pictures more alike?** :gray[{plain(after.title)}]")
    if after.notice:
        st.caption(plain(after.notice))
    grid = st.grid(5, min_column_width=120, gap="xsmall", border=True)
    grid.metric(
        "Before ↓",
        _number(found.before),
        help=f"Mean distance between the {found.pictures} highest pictures of the channel",
    )
    for label, score, help in (
        ("Intra ↓", after.intra, "Mean distance within the parts' highest pictures"),
        ("Inter ↑", after.inter, "Mean distance between pictures of different parts"),
        ("Gap ↑", after.gap, "Inter less intra"),
        ("Correlation ↑", after.correlation, "Of these distances with those of the parts' outputs"),
    ):
        grid.metric(
            label,
            _number(score.value),
            help=f"{help}. By chance {_number(score.null)} ± {_number(score.null_sd)}; "
            f"{score.n} whole pictures.",
        )


def _fractions(found: Incision, number: int) -> None:
    concepts = len(found.edit.concepts)
    columns = [Column("on", "On pictures of")]
    columns += [Column(f"d{k}", letter(k), "number") for k in range(concepts)]
    columns += [
        Column("rest", "Residual", "number"),
        Column("share", "Own share", "number", help="Positive part of its own over that of all"),
        Column("auc", "AUC", "number", help="Its own part tells it from the others; 0.5 is chance"),
    ]
    rows = []
    for k in range(concepts):
        cells = {"on": f"{letter(k)} · {found.edit.concepts[k]}"}
        cells |= {f"d{j}": _number(found.fractions[k, j]) for j in range(concepts)}
        cells |= {
            "rest": _number(found.fractions[k, concepts]),
            "share": f"{found.shares[k, k]:.2f} ± {found.share_errors[k, k]:.2f}",
            "auc": f"{found.auc[k + 1]:.2f}",
        }
        rows.append(Row(cells))
    table(columns, rows, key=f"fractions-{number}", name="Fractions of the activation")
    st.caption(
        "Ideal is 1 in the own column and 0 elsewhere. The undivided channel tells the concepts "
        f"apart with AUC {found.auc[0]:.2f} at best; the own part is the strongest on "
        f"{found.correct:.0%} of the pictures (chance {1 / concepts:.0%}). Misplaced: "
        f"{found.misplaced:.2f} of the squared activation (ideal 0, equal parts "
        f"{(concepts - 1) / concepts**2:.2f})."
    )


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{round(float(value), 2) + 0.0:.2f}"  # no -0.00


def densities(found: Incision) -> go.Figure:
    """Pictures of each concept by mean positive activation: the channel, then each part."""
    concepts, rows, _ = found.density.shape
    centres = (found.edges[:-1] + found.edges[1:]) / 2
    titles = ["before", *(f"part {letter(k)}" for k in range(concepts))]
    figure = make_subplots(1, rows, shared_xaxes=True, shared_yaxes=True, subplot_titles=titles)
    for row in range(rows):
        for k in range(concepts):
            share = found.density[k, row] / max(int(found.density[k, row].sum()), 1)
            figure.add_scatter(
                x=centres,
                y=share,
                mode="lines",
                fill="tozeroy",
                line={"color": tone(k), "width": 1.5, "shape": "hvh"},
                name=f"{letter(k)} · {found.edit.concepts[k]}",
                legendgroup=str(k),
                showlegend=row == 0,
                hovertemplate="activation %{x:.3g}<br>%{y:.0%} of its pictures<extra></extra>",
                row=1,
                col=row + 1,
            )
    figure.update_layout(**layout(250))
    figure.update_layout(
        margin={"l": 4, "r": 4, "t": 26, "b": 4},
        legend={"orientation": "h", "y": -0.18, "x": 0},
    )
    figure.update_annotations(font={"size": 12})
    figure.update_xaxes(fixedrange=True, zeroline=False)
    figure.update_yaxes(fixedrange=True, tickformat=".0%", gridcolor=GREY)
    return figure


def _galleries(here: Look, images: ImageSet, found: Incision, number: int) -> None:
    grid = st.grid(min(len(found.top), 4), min_column_width=230)
    names = ["Before", *(f"Part {letter(k)}" for k in range(len(found.edit.concepts)))]
    for row in range(len(found.top)):
        label = int(found.label[row])
        said = f"{plain(images.label_names[label])} {found.purity[row]:.0%}" if label >= 0 else ""
        index = [int(image) for image in found.top[row] if image >= 0]
        with grid.cell(), st.container(border=True):
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                colour = "gray" if row == 0 else BADGES[(row - 1) % len(BADGES)]
                st.badge(names[row], color=colour)
                st.markdown(
                    said,
                    help=f"The most frequent label of these pictures, and its share; "
                    f"{found.purity_null:.0%} by lot",
                )
            cards = [
                Card(at, source, images.label(image) or images.paths[image])
                for at, (image, source) in enumerate(
                    zip(index, sources(here.ws, index), strict=True)
                )
            ]
            gallery(cards, key=f"parts-{number}-{row}", name=f"Highest pictures: {names[row]}")
