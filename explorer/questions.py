"""Builders of questions: what can be asked, under the field's names. No device, no store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from explorer import embedders
from explorer.browse import SINGULAR, check_channel, check_query
from explorer.keys import Identity, Question
from explorer.methods import variants
from explorer.methods.clustered import LARGEST_K
from explorer.methods.method import Method
from explorer.methods.params import read_params
from explorer.methods.registry import method_named
from explorer.records import BadInput, Layer, Neuron, ReferenceQuery, Unavailable, Workspace

LONGEST_TEXT = 200
MOST_VIRTUAL = 1000
MOST_RANKED = 1000
TRUTH_METHODS = (
    *("pure", "pure:attribution=lrp", "activations", "embedding", "concept_vectors", "random"),
)
LEAST_SHARE = 1 / LARGEST_K
"""A neuron has at most as many concepts as it can be divided into."""


@dataclass(frozen=True)
class SplitQuestion:
    """One way of splitting one neuron."""

    neuron: Neuron
    method: str = "pure"
    params: Mapping[str, Any] = field(default_factory=dict)
    references: ReferenceQuery = ReferenceQuery()


@dataclass(frozen=True)
class Study:
    """A comparison of ``methods`` (texts of ``explorer.methods.variants``) at several ``ks`` on a
    seeded sample of a layer's living ``neurons``, before ``judges`` (names of embedders; none: the
    workspace's own)."""

    layer: str
    methods: tuple[str, ...] = ("pure", "activations", "embedding", "concept_vectors", "random")
    neurons: int = 100
    ks: tuple[int, ...] = (2, 3, 4, 5)
    judges: tuple[str, ...] = ()
    references: ReferenceQuery = ReferenceQuery()
    seed: int = 0


@dataclass(frozen=True)
class TruthStudy:
    """Methods judged by what is known to be in the pictures, on a seeded sample of a layer's
    living ``neurons``. A concept is one of a neuron's from ``share`` of its references on."""

    layer: str
    methods: tuple[str, ...] = TRUTH_METHODS
    neurons: int = 100
    share: float = 0.2
    references: ReferenceQuery = ReferenceQuery()
    seed: int = 0


def nothing_but(content: str) -> Identity:
    """The identity of a question that depends on one thing alone, neither network nor images."""
    return Identity(content, "")


def network(workspace: Workspace) -> Question:
    return Question("network", workspace, "", title=f"Loading {workspace.network}")


def images(workspace: Workspace, fingerprint: str) -> Question:
    args = {"fingerprint": fingerprint}
    return Question("images", workspace, "", args, f"Indexing the pictures of {workspace.images}")


def scan(workspace: Workspace, layers: Sequence[str]) -> Question:
    layers = sorted(set(layers))
    title = f"Scanning {layers[0]}" if len(layers) == 1 else f"Scanning {len(layers)} layers"
    return Question("scan", workspace, "", {"layers": layers}, title)


def table(workspace: Workspace, layer: str) -> Question:
    return Question("table", workspace, layer, {}, f"Reading the neurons of {layer}")


def crops(workspace: Workspace, neuron: Neuron, query: ReferenceQuery) -> Question:
    check_query(query)
    title = f"Finding where {neuron.address} looks"
    return Question("crops", workspace, neuron.address, {"references": asdict(query)}, title)


def split(workspace: Workspace, question: SplitQuestion) -> Question:
    args = _split_args(question)
    title = f"Splitting {question.neuron.address} by {method_named(question.method).title}"
    return Question("split", workspace, question.neuron.address, args, title)


def projection(workspace: Workspace, question: SplitQuestion) -> Question:
    args = _split_args(question)
    title = f"Drawing the map of {question.neuron.address}"
    return Question("projection", workspace, question.neuron.address, args, title)


def assignment(workspace: Workspace, question: SplitQuestion, query: ReferenceQuery) -> Question:
    """Which virtual neuron each image of ``query`` belongs to, under the split."""
    check_query(query)
    args = {"split": _split_args(question), "references": asdict(query)}
    title = f"Assigning pictures to the virtual neurons of {question.neuron.address}"
    return Question("assignment", workspace, question.neuron.address, args, title)


def alignment(
    workspace: Workspace, question: SplitQuestion, embedder: str, weights: str
) -> Question:
    """``embedder`` is one found usable; ``weights`` identifies its weights."""
    args = {"split": _split_args(question), "embedder": embedder, "weights": weights}
    title = f"Comparing the split of {question.neuron.address} with {embedder}"
    return Question("alignment", workspace, question.neuron.address, args, title)


def distances(
    workspace: Workspace, question: SplitQuestion, embedder: str, weights: str
) -> Question:
    """Pairs of references, by the rows of a split and by ``embedder``, as in ``alignment``."""
    return replace(
        alignment(workspace, question, embedder, weights),
        kind="distances",
        title=f"Measuring pairs of pictures of {question.neuron.address}",
    )


def ranking(workspace: Workspace, question: SplitQuestion, virtual: int, count: int) -> Question:
    """All scanned images along the direction of one virtual neuron."""
    if not 0 <= virtual < MOST_VIRTUAL or not 1 <= count <= MOST_RANKED:
        raise BadInput(f"Rank 1 to {MOST_RANKED} pictures for a virtual neuron, 0 being the first.")
    args = {"split": _split_args(question), "virtual": virtual, "count": count}
    title = f"Ranking pictures for {question.neuron.address}"
    return Question("ranking", workspace, question.neuron.address, args, title)


def sweep(
    workspace: Workspace,
    question: SplitQuestion,
    layer: Layer,
    channels: tuple[int, int] | None = None,
) -> Question:
    """The same split for every channel of the neuron's layer, or from one to another."""
    first, last = channels or (0, layer.channels - 1)
    for channel in (first, last):
        check_channel(replace(question.neuron, channel=channel), layer)
    if last < first:
        raise BadInput(f"Channels run from the lower to the higher: write {last}-{first}.")
    args = {"split": _split_args(question), "channels": [first, last]}
    method = method_named(question.method).title
    title = f"Splitting {last - first + 1} neurons of {layer.name} by {method}"
    return Question("sweep", workspace, layer.name, args, title)


def evaluation(workspace: Workspace, study: Study) -> Question:
    """Methods compared on a sample of neurons, before the judges that the study names."""
    ks = sorted(set(study.ks))
    if not ks or ks[0] < 2 or ks[-1] > LARGEST_K:
        raise BadInput(f"Compare methods at k from 2 to {LARGEST_K}.")
    if study.neurons < 1 or study.seed < 0:
        raise BadInput("Compare methods on one neuron or more, with a seed from 0 on.")
    methods = dict(_studied(workspace, study, each, ks) for each in study.methods)
    if not methods:
        raise BadInput("Name at least one method to evaluate.")
    args = {
        "methods": [{"name": name, "splits": splits} for name, splits in methods.items()],
        "neurons": study.neurons,
        "ks": ks,
        "judges": [
            {"name": name, "weights": _weights(name)} for name in dict.fromkeys(study.judges)
        ],
        "references": asdict(study.references),
        "seed": study.seed,
    }
    title = f"Comparing {len(methods)} methods on {study.neurons} neurons of {study.layer}"
    return Question("evaluation", workspace, study.layer, args, title)


def truth(workspace: Workspace, study: TruthStudy) -> Question:
    """Methods judged by truth, each at the true number of concepts and at its own choice."""
    check_query(study.references)
    if study.neurons < 1 or study.seed < 0:
        raise BadInput("Judge methods on one neuron or more, with a seed from 0 on.")
    if not LEAST_SHARE <= study.share <= 0.5:
        raise BadInput(
            f"A concept counts from a share of {LEAST_SHARE:g} to 0.5 of the references on, not "
            f"{study.share:g}."
        )
    methods = dict(_judged(workspace, study, each) for each in study.methods)
    if not methods:
        raise BadInput("Name at least one method to judge.")
    args = {
        "methods": [{"name": name} | asked for name, asked in methods.items()],
        "neurons": study.neurons,
        "share": study.share,
        "references": asdict(study.references),
        "seed": study.seed,
    }
    title = f"Judging {len(methods)} methods by truth on neurons of {study.layer}"
    return Question("truth", workspace, study.layer, args, title)


def search(workspace: Workspace, layer: str, text: str, embedder: str, weights: str) -> Question:
    """Rank a layer by words; ``embedder`` and ``weights`` as in ``alignment``."""
    words = " ".join(text.split())
    if not words or len(words) > LONGEST_TEXT or not words.isprintable():
        raise BadInput(f"Search for 1 to {LONGEST_TEXT} readable characters.")
    args = {"text": words, "embedder": embedder, "weights": weights}
    return Question("search", workspace, layer, args, f"Searching {layer} for '{words[:40]}'")


def embedder(workspace: Workspace, spec: str) -> Question:
    return Question("embedder", workspace, "", {"spec": spec}, f"Looking for {spec}")


def figure(
    workspace: Workspace, recipe: Mapping[str, Any], form: str, embedder: str, weights: str
) -> Question:
    """``recipe`` is validated; ``embedder`` and ``weights`` as in ``alignment``."""
    args = {"recipe": dict(recipe), "format": form, "embedder": embedder, "weights": weights}
    return Question("figure", workspace, "", args, "Drawing the figure")


def _split_args(question: SplitQuestion) -> dict[str, Any]:
    """Arguments with every parameter spelled out, so that defaults and words share a key, and the
    references that the method divides when asked for those."""
    check_query(question.references)
    if question.references.by == SINGULAR:
        raise BadInput("Singular directions start concept vectors: set their parameter start.")
    method = method_named(question.method)
    params = read_params(method.Params, question.params)
    if getattr(params, "embedder", ""):
        embedders.parse(params.embedder)
    return {
        "method": method.name,
        "version": method.version,
        "params": asdict(params),
        "references": asdict(method.query(question.references, params)),
    }


def _weights(judge: str) -> str:
    """What identifies an embedder's weights, "" where they cannot be had: then the comparison goes
    on without it. BadInput for a wrong name."""
    try:
        return embedders.identity(judge)
    except Unavailable:
        return ""


def _studied(
    workspace: Workspace, study: Study, text: str, ks: Sequence[int]
) -> tuple[str, list[dict[str, Any]]]:
    """A method's canonical text, and the arguments of its split for each k; of its only split where
    it finds k itself."""
    method, params = _without_k(text)
    each_k = [{"k": k} for k in ks] if variants.takes_k(method) else [{}]
    neuron = Neuron(workspace.name, study.layer, 0)
    splits = [
        _split_args(SplitQuestion(neuron, method.name, {**params, **k}, study.references))
        for k in each_k
    ]
    return variants.text(method.name, params), splits


def _judged(workspace: Workspace, study: TruthStudy, text: str) -> tuple[str, dict[str, Any]]:
    """A method's canonical text, and the arguments of its split at no particular k: whether it
    ``takes_k``, and whether it ``chooses`` one where none is asked for."""
    method, params = _without_k(text)
    takes = variants.takes_k(method)
    neuron = Neuron(workspace.name, study.layer, 0)
    question = SplitQuestion(neuron, method.name, params, study.references)
    chooses = not takes or method.Params().k == 0
    args = {"split": _split_args(question), "takes_k": takes, "chooses": chooses}
    return variants.text(method.name, params), args


def _without_k(text: str) -> tuple[Method, dict[str, Any]]:
    method, params = variants.parse(text)
    if "k" in params:
        raise BadInput(f"Every k asked for is compared: leave k out of '{text[:60]}'.")
    return method, params
