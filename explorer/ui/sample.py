"""The Compare page for a sample of a layer: the form, the tables and figures, what to keep."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import streamlit as st

from explorer import exports
from explorer.backend import Study
from explorer.records import Evaluation, EvaluationRow, Layer, ReferenceQuery, Status
from explorer.ui import charts, choices, pickers
from explorer.ui.keeping import keep
from explorer.ui.session import asker, backend, plain, section
from explorer.ui.tables import Column, Row, table
from explorer.ui.waiting import waiting

DEFAULT = Study("")
MOST_NEURONS = 4096
MOST_METHODS = 12
KS = tuple(str(k) for k in range(2, 9))
MEASURES = {"gap": "Gap", "intra": "Within", "inter": "Between"}
STATIC = {"displayModeBar": False}


def show(ws: str, layer: Layer) -> None:
    """The page."""
    study = _form(ws, layer)
    wanted = backend().settings.read_only or st.session_state.get("study") == study
    with section():
        studies = backend().studies
        ask = studies.evaluation if wanted else studies.known_evaluation
        answer = ask(ws, study, asker())
        if isinstance(answer, Status):
            waiting(answer)
        elif answer is None:
            _start(study)
        else:
            _results(ws, study, answer)


def command(ws: str, study: Study) -> str:
    """The command that makes the same comparison."""
    words = ["python", "-m", "explorer", "evaluate", study.layer, "--workspace", ws]
    words += ["--methods", *study.methods, "--neurons", str(study.neurons)]
    words += ["--ks", *map(str, study.ks), "--references", str(study.references.count)]
    words += ["--by", study.references.by] if study.references.by != "max" else []
    words += ["--judges", *study.judges] if study.judges else []
    words += ["--seed", str(study.seed)] if study.seed else []
    return shlex.join([*words, "--json"])


def _form(ws: str, layer: Layer) -> Study:
    wide = st.grid(3, min_column_width=290)
    with wide.cell(column_span=2):
        names = choices.methods(ws, MOST_METHODS)
    titles = backend().studies.judges(ws)
    own = next(iter(titles))
    with wide.cell():
        judges = pickers.several(
            "judges",
            "Judges",
            list(titles),
            [own],
            titles,
            accept_new_options=True,
            help="Embedders whose distances judge; take at least two, none the explained network.",
        )
    narrow = st.grid(6, min_column_width=120)
    with narrow.cell():
        neurons = pickers.whole(
            "sample", "Neurons", 100, 1, MOST_NEURONS, "Living ones, drawn by lot"
        )
    with narrow.cell(column_span=2):
        ks = pickers.several("ks", "k", KS, [str(k) for k in DEFAULT.ks], pills=True)
    with narrow.cell():
        count = pickers.whole("count", "References", 100, 5, 1000, "Pictures of each neuron")
    with narrow.cell():
        titles = {"max": "Maximum", "mean": "Mean"}
        by = pickers.select("by", "Ranked by", list(titles), "max", titles)
    with narrow.cell():
        draw = pickers.whole("draw", "Draw", 0, 0, 2**31 - 1, "Seed of the sample")
    return Study(
        layer=layer.name,
        methods=tuple(names),
        neurons=neurons,
        ks=tuple(sorted({int(k) for k in ks if k in KS})),
        judges=tuple(judges),
        references=ReferenceQuery(by=by, count=count),
        seed=draw,
    )


def _start(study: Study) -> None:
    with st.container(border=True):
        st.markdown(
            f"**{_count(study.neurons, 'neuron')}, {_count(len(study.methods), 'method')}, "
            f"{_count(len(study.judges), 'judge')}.** It runs in the background, seconds per "
            "neuron; pages stay quick meanwhile. Splits and embeddings are kept, so it goes on "
            "where it was, and a larger sample adds only what is new."
        )
        if st.button("Compare", type="primary", icon=":material/play_arrow:"):
            st.session_state["study"] = study
            st.rerun()


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _results(ws: str, study: Study, found: Evaluation) -> None:
    if found.notice:
        st.info(plain(found.notice), icon=":material/info:")
    for name, why in found.missing:
        st.warning(f"**{plain(name)}** is missing: {plain(why)}", icon=":material/warning:")
    judges = {each.used: each.title for each in found.judges if _of(found, each.used)}
    judge = next(iter(judges))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.subheader(f"{len(found.channels)} neurons of {plain(found.layer)}", anchor=False)
        st.space("stretch")
        if len(judges) > 1:
            judge = pickers.segments("before", "Judge", judges, judge)
    rows = _of(found, judge)
    titles = {row.method: choices.title_of(row.method) for row in rows}
    _table(found, rows, titles)
    _keep(ws, study, found)
    halves = st.grid(2, min_column_width=320)
    with halves.cell(), st.container(border=True):
        st.subheader("Gap over k", anchor=False)
        st.plotly_chart(charts.over_k(rows, titles), config=STATIC, key="over-k", alt="Gap over k")
        st.caption("Mean over neurons ± standard error; diamonds: methods that find k themselves.")
    with halves.cell(), st.container(border=True):
        st.subheader("Correlation with the judge's distances", anchor=False)
        chart = charts.correlations(rows, titles)
        st.plotly_chart(chart, config=STATIC, key="correlations", alt="Correlation of distances")
        st.caption(
            f"Mean over {rows[0].correlation_n} {found.correlated} ± standard error; grey: "
            "shuffled references."
        )
    _at_one_k(found, rows, titles, judge)
    spent = " · ".join(f"{name} {each:,.0f} s" for name, each in found.seconds.items())
    st.caption(f"Time spent: {spent}.")


def _of(found: Evaluation, judge: str) -> list[EvaluationRow]:
    return [row for row in found.rows if row.judge == judge]


def _table(found: Evaluation, rows: Sequence[EvaluationRow], titles: dict[str, str]) -> None:
    lines = [
        Row(
            {
                "method": titles[row.method],
                "k": f"{row.k:.2f} (own)" if row.own else f"{row.k:.0f}",
                "intra": _with_error(row.intra, row.intra_se, 3),
                "inter": _with_error(row.inter, row.inter_se, 3),
                "gap": _with_error(row.gap, row.gap_se),
                "null": _with_error(row.gap_null, row.gap_null_sd),
                "correlation": _with_error(row.correlation, row.correlation_se, 3),
                "shuffled": f"{row.correlation_null:.3f}",
                "kept": f"{row.kept:.0%}",
                "n": str(row.n),
            }
        )
        for row in rows
    ]
    columns = (
        Column("method", "Method"),
        Column("k", "k", "number"),
        Column("intra", "Within ↓", "number", help="Mean distance within virtual neurons"),
        Column("inter", "Between ↑", "number", help="Mean distance between virtual neurons"),
        Column("gap", "Gap ↑", "number", help="Between minus within"),
        Column("null", "Null gap", "number", minor=True, help="Under random labels"),
        Column("correlation", "Correlation ↑", "number", help="Of distances with the judge's"),
        Column("shuffled", "Null", "number", minor=True, help="With shuffled references"),
        Column("kept", "Kept", "number", minor=True, help="References in some virtual neuron"),
        Column("n", "n", "number", help="Neurons"),
    )
    with st.container(border=True):
        table(columns, lines, key="evaluation", name="Methods compared")
        st.caption("Means over neurons ± standard error. What each is: docs/scores.md.")


def _with_error(value: float, error: float, digits: int = 4) -> str:
    if np.isnan(value):
        return "—"
    return f"{value:.{digits}f} ± {error:.{digits}f}".replace("-0.0000", "0.0000")


def _keep(ws: str, study: Study, found: Evaluation) -> None:
    """Downloads, and the command that makes the same numbers."""
    files = {
        "Table": ("table.csv", exports.to_csv([asdict(row) for row in found.rows])),
        "Every neuron": ("neurons.csv", exports.to_csv(exports.neurons(found))),
        "Everything": ("evaluation.json", exports.to_json(exports.evaluation(found, True))),
    }
    keep(command(ws, study), files)


def _at_one_k(
    found: Evaluation, rows: Sequence[EvaluationRow], titles: dict[str, str], judge: str
) -> None:
    """Box plots and paired differences at one k; methods that find k themselves stay."""
    ks = sorted({int(row.k) for row in rows if not row.own})
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        at = (
            int(pickers.segments("at", "k", {str(k): f"k = {k}" for k in ks}, str(ks[0])))
            if ks
            else 0
        )
        st.space("stretch")
        measure = pickers.segments("measure", "Measure", MEASURES, "gap", pills=True)
    shown = {
        titles[row.method]: _values(found, number, measure)
        for number, row in enumerate(found.rows)
        if row.judge == judge and (row.own or row.k == at)
    }
    halves = st.grid(2, min_column_width=320)
    with halves.cell(), st.container(border=True):
        st.subheader("Every neuron", anchor=False)
        names = [f"{found.layer}:{channel}" for channel in found.channels]
        chart = charts.boxes(shown, names, MEASURES[measure].lower())
        st.plotly_chart(chart, config=STATIC, key="boxes", alt="Values of every neuron by method")
        st.caption("Boxes: quartiles and median, dashed the mean.")
    with halves.cell(), st.container(border=True):
        st.subheader("Differences on the same neurons", anchor=False)
        _differences(found, judge, at, titles)


def _values(found: Evaluation, number: int, measure: str) -> np.ndarray:
    values = {"intra": found.intra, "inter": found.inter, "gap": found.inter - found.intra}
    return values[measure][number]


def _differences(found: Evaluation, judge: str, k: int, titles: dict[str, str]) -> None:
    lines = [
        Row(
            {
                "pair": f"{titles[each.first]} − {titles[each.second]}",
                "mean": f"{each.mean:+.3f}",
                "interval": f"{each.low:+.3f} to {each.high:+.3f}",
                "n": str(each.n),
                "clear": {"text": "clear", "tone": "good"}
                if each.low > 0 or each.high < 0
                else {"text": "open", "tone": "off"},
            }
        )
        for each in found.differences
        if each.judge == judge and each.k in (k, 0)
    ]
    columns = (
        Column("pair", "Gap of"),
        Column("mean", "Difference", "number"),
        Column("interval", "95 % interval", "number", help="Student's t over neurons"),
        Column("n", "n", "number"),
        Column("clear", "", "badge", help="Whether the interval leaves 0 out"),
    )
    if lines:
        table(columns, lines, key="differences", name="Paired differences of the gap")
    st.caption("Of twenty intervals, one leaves 0 out by chance.")
