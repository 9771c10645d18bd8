"""The Neurons page: the neurons of a layer, sorted, filtered, or ranked by words."""

from __future__ import annotations

import numpy as np
import streamlit as st

from explorer.records import ImageSet, LayerTable, Search, Status
from explorer.ui import address, pickers
from explorer.ui.gallery import strips
from explorer.ui.places import open_neuron
from explorer.ui.session import asker, backend, plain
from explorer.ui.tables import Column, Row, table
from explorer.ui.waiting import soon, waiting

PAGE = 25
PICTURES = 8
SHOW = {"alive": "Alive", "dead": "Dead", "every": "All"}
COLUMNS = (
    Column("neuron", "Neuron", sort=True),
    Column("pictures", "Highest pictures", "pictures"),
    Column("label", "Label", help="The most frequent label of its top references"),
    Column("purity", "Purity", "bar", sort=True, help="That label's share of them", minor=True),
    Column("max", "Highest", "number", sort=True, help="Highest activation over the pictures"),
    Column("mean", "Mean", "number", sort=True, help="Mean over pictures and places", minor=True),
    Column(
        "density", "Fires on", "number", sort=True, help="Share of pictures with any activation"
    ),
    Column(
        "silhouette",
        "Silhouette",
        "number",
        sort=True,
        help="Of its default split, if computed",
        minor=True,
    ),
)
MATCH = Column("match", "Match", "bar", sort=True, help="Cosine with the words; higher is closer")


def controls() -> tuple[str, str, str]:
    """The words to rank by, the label to filter by, and which neurons are shown."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        words = address.text("text").strip()
        st.text_input(
            "Rank by words",
            type="search",
            icon=":material/search:",
            max_chars=200,
            placeholder="striped fur, wheels, text …",
            **pickers.bind("text", words, ("sort", "order", "page")),
        )
        find = address.text("find").strip()
        st.text_input("Label contains", max_chars=60, **pickers.bind("find", find, ("page",)))
        show = pickers.segments("show", "Show", SHOW, "alive", forget=("page",))
    return words, find, show


def search(ws: str, layer: str, words: str) -> Search | None:
    """The layer ranked by words, with who ranked it; None while there is no answer."""
    answer = soon(lambda: backend().search(ws, layer, words, asker()))
    if isinstance(answer, Status):
        waiting(answer)
        return None
    info = backend().embedder(ws, asker())
    title = answer.embedder if isinstance(info, Status) else info.title
    st.caption(
        f"Ranked by {plain(title)}: the words against the mean embedding of each neuron's top "
        f"references. {plain(answer.notice)}"
    )
    return answer


def ranked(
    rows: LayerTable,
    images: ImageSet,
    values: dict[str, np.ndarray],
    find: str,
    show: str,
    default: str,
) -> tuple[np.ndarray, tuple[str, bool]]:
    """Channels to show, in order, and by which column, descending or not."""
    keep = {"alive": rows.alive, "dead": ~rows.alive}.get(show, np.ones_like(rows.alive))
    if find:
        wanted = [find.lower() in name.lower() for name in images.label_names]
        keep = keep & np.array([label >= 0 and wanted[label] for label in rows.label])
    by = address.choice("sort", default, list(values), "sort")
    down = address.choice("order", "down", ["down", "up"], "order") == "down"
    value = np.where(np.isnan(values[by]), -np.inf if down else np.inf, values[by])
    order = np.argsort(-value if down else value, kind="stable")
    return order[keep[order]], (by, down)


def columns_of(
    rows: LayerTable, silhouettes: np.ndarray | None, found: Search | None
) -> dict[str, np.ndarray]:
    """What can be sorted by, f32[C] each."""
    values = {
        "max": rows.maximum,
        "mean": rows.mean,
        "density": rows.density,
        "purity": rows.purity,
        "neuron": -np.arange(len(rows.maximum), dtype=np.float32),
    }
    if silhouettes is not None and np.isfinite(silhouettes).any():
        values["silhouette"] = silhouettes
    return ({"match": found.score} if found is not None else {}) | values


def listing(
    ws: str,
    rows: LayerTable,
    images: ImageSet,
    values: dict[str, np.ndarray],
    order: np.ndarray,
    sorted_by: tuple[str, bool],
) -> None:
    """One page of the neurons in ``order``."""
    pages = max(1, -(-len(order) // PAGE))
    page = min(address.integer("page", 1, 1, 100_000) or 1, pages)
    here = order[(page - 1) * PAGE : page * PAGE]
    if not here.size:
        st.info(
            "No neuron of this layer is like that: loosen the filters.",
            icon=":material/filter_alt:",
        )
        return
    columns = [column for column in COLUMNS if column.id != "silhouette" or "silhouette" in values]
    if "match" in values:
        columns.insert(1, MATCH)
    top = {int(channel): rows.top[channel][:PICTURES].tolist() for channel in here}
    pictures = strips(ws, images, top)
    best = float(np.nanmax(values["match"])) if "match" in values else 1.0
    table(
        columns,
        [_row(rows, images, values, channel, shown, best) for channel, shown in pictures.items()],
        key="neurons",
        name=f"Neurons of {rows.layer}",
        size=48,
        sorted_by=sorted_by,
        on_open=lambda channel: open_neuron(rows.layer, int(channel)),
        on_sort=lambda column: _sort(column, sorted_by),
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        pickers.page_number(pages)
        st.caption(f"{len(order):,} of {len(rows.alive):,} neurons", width="content")


def _sort(column: str, sorted_by: tuple[str, bool]) -> None:
    down = not sorted_by[1] if column == sorted_by[0] else True
    address.put(sort=column, order="down" if down else "up", page=None)


def _row(
    rows: LayerTable,
    images: ImageSet,
    values: dict[str, np.ndarray],
    channel: int,
    pictures: list[tuple[str, str]],
    best: float,
) -> Row:
    label = int(rows.label[channel])
    purity = float(rows.purity[channel])
    cells = {
        "neuron": str(channel),
        "pictures": pictures,
        "label": images.label_names[label] if label >= 0 else "dead" * (not rows.alive[channel]),
        "purity": {"fill": purity, "text": f"{purity:.0%}"} if label >= 0 else None,
        "max": f"{rows.maximum[channel]:.2f}",
        "mean": f"{rows.mean[channel]:.3f}",
        "density": f"{rows.density[channel]:.1%}",
    }
    for name in ("silhouette", "match"):
        value = float(values[name][channel]) if name in values else np.nan
        cells[name] = f"{value:.2f}" if np.isfinite(value) else "–"
    if "match" in values and np.isfinite(values["match"][channel]):
        value = float(values["match"][channel])
        cells["match"] = {"fill": max(value, 0) / max(best, 1e-9), "text": f"{value:.3f}"}
    elif "match" in values:
        cells["match"] = None
    return Row(cells, id=str(channel), title=f"Open neuron {rows.layer}:{channel}")
