"""The About page, drawn from the registries: methods with papers, formulas, settings, licences."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version

import streamlit as st

from explorer.methods.registry import METHODS
from explorer.settings import VARIABLES
from explorer.ui.session import plain
from explorer.ui.tables import Column, Row, table

LIBRARIES = (
    *("torch", "torchvision", "timm", "zennit", "open_clip_torch", "numpy", "scikit-learn"),
    *("matplotlib", "streamlit", "plotly", "diskcache"),
)
FORMULAS = {
    "References": (
        (
            r"s_k(x) = \max_{h,w} a_k(x)_{hw}, \qquad X_k = "
            r"\text{the } K \text{ pictures with the highest } s_k"
        ),
        (
            "Ranked on the rectified value before any ceiling (ReLU6); the mean over places is the "
            "other choice. At most one picture of each photograph."
        ),
    ),
    "Relevance of the lower layer's channels": (
        (
            r"\tilde r_i = \sum_{hw} a^l_i \odot \frac{\partial \langle \mathrm{sg}(a_k^+), "
            r"a_k \rangle}{\partial a^l_i}, \qquad r = \tilde r \,/\, \lVert \tilde r \rVert_1"
        ),
        (
            "Gradient × activation, seeded with the rectified map (sg: held fixed), as in the "
            "released code of PURE. Or LRP after canonisation, as in the paper."
        ),
    ),
    "LRP": (
        (
            r"R_i = \sum_j \frac{x_i w_{ij}}{z_j + \varepsilon\,\mathrm{sgn}\, z_j} R_j "
            r"\; \text{(linear)}, \qquad "
            r"R_i = \sum_j \frac{(x_i w_{ij})^+}{\sum_{i'} (x_{i'} w_{i'j})^+} R_j "
            r"\; \text{(convolution)}"
        ),
        (
            "Epsilon for linear layers, plus for convolutions, flat for the first one; batch norm "
            "is merged and sums share relevance in proportion."
        ),
    ),
    "Virtual neurons": (
        (
            r"\min_{\mu_1 \dots \mu_V} \sum_x \min_v \lVert r(x) - \mu_v \rVert_2^2, \qquad "
            r"v(x) = \arg\min_v \lVert r(x) - \mu_v \rVert_2"
        ),
        (
            "k-means. The number of virtual neurons is chosen by silhouette and by stability over "
            "resamples, against rows with shuffled columns; one is a possible answer."
        ),
    ),
    "Agreement with an embedder": (
        (
            r"\text{gap} = \underset{v(x) \ne v(y)}{\mathrm{mean}} \lVert e_x - e_y \rVert - "
            r"\underset{v(x) = v(y)}{\mathrm{mean}} \lVert e_x - e_y \rVert"
        ),
        (
            "Distances of the crops' embeddings. Each score comes with its value under random "
            "labels of the same sizes, its spread and n."
        ),
    ),
    "Linear explanations": (
        (
            r"\hat a_k(x) = b + \sum_c w_c\, P(c \mid x), \qquad P(c \mid x) = "
            r"\sigma\bigl(\alpha\,(\cos(e_x, e_c) + \beta)\bigr)"
        ),
        (
            "Few concepts, chosen greedily on validation pictures and fitted by exact least "
            "squares on training pictures; scored by the correlation with the activation on "
            "test pictures. T. Oikarinen, T.-W. Weng: Linear Explanations for Individual "
            "Neurons. ICML, 2024. arXiv:2405.06855"
        ),
    ),
    "Channel surgery": (
        (
            r"w = \sum_{j=1}^{n} d_j - (n - 1)\, r, \qquad v_j = w \odot \underset{x \in "
            r"\text{concept } j}{\mathrm{mean}} \sum_{hw} h(x)"
        ),
        (
            "Each input of the channel goes to the concept whose relevance it carries, or to all; "
            "the parts merge to the weights as they were. After: Disentangling Polysemantic "
            "Channels in Convolutional Neural Networks, 2025. arXiv:2504.12939"
        ),
    ),
}
LICENCES = {
    "This program": "MIT",
    "zennit": "LGPL-3.0-or-later; the tests hold relevance against it",
    "PyTorch, torchvision": "BSD-3-Clause",
    "timm, Streamlit": "Apache-2.0",
    "Inter (typeface)": "SIL Open Font License 1.1, © 2016 The Inter Project Authors",
    "Demo pictures": "tuxpaint-stamps and gcompris-qt; authors and licences lie with them",
}


def methods() -> None:
    """Every method: what it does, its paper, its parameters."""
    for method in METHODS.values():
        with st.container(border=True):
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.subheader(method.title, anchor=False, width="content")
                st.badge(f"{method.name} · version {method.version}", color="gray")
            st.markdown(plain(method.summary))
            st.caption(plain(method.citation, 2000))
            rows = [
                Row({"name": each.name, "default": _default(each.default), "help": _help(each)})
                for each in fields(method.Params)
            ]
            _wide("parameters-" + method.name, ("Parameter", "Default", "Meaning"), rows)


def formulas() -> None:
    """What is computed, as formulas."""
    for title, (formula, words) in FORMULAS.items():
        with st.container(border=True):
            st.subheader(title, anchor=False)
            st.latex(formula)
            st.caption(words)


def settings() -> None:
    """Every environment variable that is read."""
    rows = [Row({"name": name, "help": meaning}) for name, meaning in VARIABLES.items()]
    table(
        (Column("name", "Environment"), Column("help", "Meaning", "wide")),
        rows,
        key="settings",
        name="Settings",
    )


def licences() -> None:
    """Licences of what is built on."""
    rows = [Row({"name": name, "help": licence}) for name, licence in LICENCES.items()]
    columns = (Column("name", "What"), Column("help", "Licence", "wide"))
    table(columns, rows, key="licences", name="Licences")


def versions() -> None:
    """Versions of what computes."""
    found = [("Python", platform.python_version())]
    for name in LIBRARIES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            found.append((name, "not installed"))
    rows = [Row({"name": name, "version": number}) for name, number in found]
    table(
        (Column("name", "Library"), Column("version", "Version")),
        rows,
        key="versions",
        name="Versions",
    )


def _wide(key: str, titles: Sequence[str], rows: Sequence[Row]) -> None:
    columns = (
        Column("name", titles[0]),
        Column("default", titles[1]),
        Column("help", titles[2], "wide"),
    )
    table(columns, rows, key=key, name=titles[0])


def _default(value: object) -> str:
    return "empty" if value == "" else str(value)


def _help(each: object) -> str:
    return str(each.metadata["help"])
