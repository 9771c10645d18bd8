"""The Surgery page's upper part: what makes the layer, polysemantic channels, the form."""

from __future__ import annotations

import streamlit as st

from explorer.methods.registry import METHODS
from explorer.operations import GAMMA, RULE, SHARE, TAU, Operation, Wanted, operation
from explorer.records import BadInput, Candidates, ImageSet, Maker, Status
from explorer.ui import address, pickers
from explorer.ui.gallery import strips
from explorer.ui.places import Look
from explorer.ui.plots import letter
from explorer.ui.session import asker, backend, plain
from explorer.ui.tables import Column, Row, table
from explorer.ui.waiting import waiting

RHOS = ("0", *(f"{step / 20:g}" for step in range(1, 21)))
RULES = {
    "fitted": "Fitted",
    "balanced": "Balanced",
    "symmetric": "Symmetric",
    "published": "As published",
}
EVIDENCE = {"classes": "By labels", "splits": "By splits"}
INTO = {"classes": "Labels", "split": "Virtual neurons"}
SHOWN = 12
MOST_EDITS = 6
COLUMNS = (
    Column("channel", "Channel"),
    Column("first", "Serves"),
    Column("pictures", "Its pictures", "pictures"),
    Column("second", "and"),
    Column("others", "Its pictures", "pictures"),
    Column("cosine", "Cosine", "number", help="Of the two relevance vectors; lower is more unlike"),
)


def maker(here: Look) -> Maker | None:
    """What makes the layer; None, with what to do, where it cannot be divided."""
    made = backend().surgery.maker(here.ws, here.layer, asker())
    if isinstance(made, Status):
        waiting(made)
        return None
    if not made.refusal:
        return made
    st.warning(plain(made.refusal), icon=":material/info:")
    if made.shown:
        st.button(
            f"Go to {made.shown}",
            icon=":material/arrow_forward:",
            type="primary",
            on_click=lambda: address.put(layer=made.shown),
        )
    return None


def said(made: Maker) -> str:
    """What makes the layer, in one line."""
    size = f"{made.channels:,} channels of {made.inputs:,} inputs"
    return f":gray[{plain(made.path)} · {made.kind} · {size}]"


def candidates(here: Look, made: Maker, images: ImageSet) -> None:
    """Channels that serve unlike things; opening one fills the form."""
    default = "classes" if images.label_names else "splits"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.subheader("Polysemantic channels", anchor=False, width="content")
        by = pickers.segments("evidence", "Evidence", EVIDENCE, default)
        with st.popover("Thresholds", icon=":material/tune:"):
            wanted = Wanted(by, *_thresholds())
    ask = backend().surgery
    found = ask.candidates(here.ws, made.path, wanted, asker(), start=False)
    if found is None:
        if st.button(
            "Look for candidates", icon=":material/search:", help="One pass over the pictures"
        ):
            ask.candidates(here.ws, made.path, wanted, asker())
            st.rerun()
        return
    if isinstance(found, Status):
        waiting(found)
        return
    if not found.channel.size:
        st.info(plain(found.advice), icon=":material/filter_alt:")
        return
    _listing(here, images, found)


def _thresholds() -> tuple[float, float, float]:
    values = []
    for name, label, default, help in (
        ("tau", "Importance", TAU, "Share of a picture's positive relevance"),
        ("share", "Share of a label's pictures", SHARE, "In which it must be important"),
        ("gamma", "Cosine below", GAMMA, "Of two relevance vectors, to count as unlike"),
    ):
        value = address.number(name, default, 0.0, 1.0, label.lower())
        st.number_input(
            label, 0.0, 1.0, step=0.005, format="%.3f", help=help, **pickers.bind(name, value)
        )
        values.append(value)
    return values[0], values[1], values[2]


def _listing(here: Look, images: ImageSet, found: Candidates) -> None:
    shown = range(min(len(found.channel), SHOWN))
    groups = found.pictures[: len(shown)].reshape(2 * len(shown), -1).tolist()
    lines = {at: [image for image in group if image >= 0] for at, group in enumerate(groups)}
    pictures = strips(here.ws, images, lines)
    rows = []
    for at in shown:
        first, second = (found.names[group] for group in found.groups[at])
        cells = {
            "channel": str(found.channel[at]),
            "first": first,
            "second": second,
            "pictures": pictures.get(2 * at, []),
            "others": pictures.get(2 * at + 1, []),
            "cosine": f"{found.cosine[at]:.3f}",
        }
        rows.append(Row(cells, id=str(at), title=f"Divide channel {found.channel[at]}"))

    def opened(row: str) -> None:
        at = int(row)
        groups = ",".join(str(group) for group in found.groups[at])
        by_labels = {"into": "classes", "groups": groups}
        by_split = {"into": "split", "groups": None}
        concepts = by_labels if found.by == "classes" else by_split
        address.put(neuron=int(found.channel[at]), **concepts)

    table(
        COLUMNS,
        rows,
        key="candidates",
        name="Polysemantic channels",
        size=44,
        on_open=opened,
    )
    channels = len(set(found.channel.tolist()))
    more = f", the {SHOWN} most unlike shown" if len(found.channel) > SHOWN else ""
    st.caption(
        f"{len(found.channel):,} pairs over {channels:,} of {found.looked:,} channels{more} · "
        f"{plain(found.how)}, {found.seconds:.0f} s"
    )


def kept() -> list[Operation]:
    """The edits in the address, those that can be read."""
    found = []
    for text in filter(None, address.text("edits").split(";")):
        try:
            found.append(operation(text))
        except BadInput as error:
            address.note(str(error))
    return found[:MOST_EDITS]


def put_edits(listed: list[Operation]) -> None:
    """Write the list of edits to the address. For callbacks."""
    address.put(edits=";".join(each.text for each in listed) or None)


def form(here: Look, made: Maker, images: ImageSet) -> Operation | None:
    """The operation that the form describes; None while its concepts are not chosen."""
    before = kept()
    new = sum(len(each.classes) or 8 for each in before if each.neuron.startswith(f"{here.layer}:"))
    most = made.channels + new - 1
    channel = address.integer("neuron", 0, 0, most, "channel") or 0
    default = "classes" if images.label_names else "split"
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.number_input(
            "Channel", 0, most, width=120, **pickers.bind("neuron", channel, ("groups",))
        )
        with st.container(width="content"):
            into = pickers.segments("into", "Concepts", INTO, default)
        with st.container(width="content"):
            rule = pickers.segments("rule", "Rule", RULES, RULE)
        titles = {"0": "Automatic"}
        rho = float(pickers.select("rho", "rho", RHOS, "0", titles, width=130))
    neuron = f"{here.layer}:{channel}"
    if into == "split":
        return _by_split(neuron, rule, rho)
    groups = _groups(images)
    if len(groups) < 2 or not all(groups):
        st.caption("Choose labels for two concepts at least.")
        return None
    return Operation(neuron, groups, rule=rule, rho=rho)


def _by_split(neuron: str, rule: str, rho: float) -> Operation:
    titles = {name: each.title for name, each in METHODS.items()}
    counts = {"0": "Auto", **{str(number): str(number) for number in range(2, 9)}}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        method = pickers.select("method", "Method", list(titles), "pure", titles, width=260)
        with st.container(width="content"):
            k = int(pickers.segments("k", "How many", counts, "0"))
    return Operation(neuron, (), method, k, rule=rule, rho=rho)


def _groups(images: ImageSet) -> tuple[tuple[int, ...], ...]:
    """The labels of each concept, from as many lists as there are concepts and one more."""
    known = range(len(images.label_names))
    groups: list[list[int]] = []
    for part in address.text("groups").split(","):
        numbers = [int(n) for n in part.split(".") if n.isascii() and n.isdigit()]
        groups.append([number for number in numbers if number in known])
    groups = groups[:8]
    lists = max(2, len(groups) + bool(groups[-1] and len(groups) > 1) * (len(groups) < 8))
    columns = st.columns(lists)
    for at in range(lists):
        key = f"group-{at}"
        chosen = groups[at] if at < len(groups) else []
        others = {number for other, group in enumerate(groups) if other != at for number in group}
        st.session_state[key] = chosen
        columns[at].multiselect(
            f"Concept {letter(at)}",
            [number for number in known if number not in others],
            format_func=lambda number: images.label_names[number],
            key=key,
            on_change=_put_groups,
            args=(lists,),
            placeholder="Add a concept" if at > 1 and not chosen else "Labels",
        )
    return tuple(tuple(group) for group in groups if group)


def _put_groups(lists: int) -> None:
    groups = [st.session_state[f"group-{at}"] for at in range(lists)]
    text = ",".join(".".join(map(str, group)) for group in groups if group)
    address.put(groups=text or None)
