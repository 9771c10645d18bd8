"""Questions of channel surgery: operations and their text form, candidates, reports, files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from explorer import questions
from explorer.keys import Question
from explorer.networks import edit_list
from explorer.networks.dividing import FITTED, RULES
from explorer.questions import SplitQuestion
from explorer.records import BadInput, EditedNetwork, ImageSet, Neuron, ReferenceQuery, Workspace

MOST_OPERATIONS = 20
MOST_CONCEPTS = 8
PICTURES = 64
"""Real pictures on which an edited network is compared with the original, unless asked."""
TAU, SHARE, GAMMA, LEAST, DERIVED = 0.03, 0.75, 0.5, 5, 12
RULE = FITTED


@dataclass(frozen=True)
class Operation:
    """Divide the channel ``neuron`` (LAYER:CHANNEL) among concepts: groups of labels by number
    (``classes``), or else the virtual neurons of a split by ``method`` into ``k`` (0 = automatic)
    of the top ``references``. ``rho`` 0 chooses it."""

    neuron: str
    classes: tuple[tuple[int, ...], ...] = ()
    method: str = "pure"
    k: int = 0
    references: int = 100
    rule: str = RULE
    rho: float = 0.0

    @property
    def text(self) -> str:
        """One short text, for links; ``operation`` reads it back."""
        concepts = ",".join(".".join(map(str, group)) for group in self.classes)
        by = concepts or f"{self.method}-{self.k}-{self.references}"
        return f"{self.neuron}~{by}~{self.rule}~{self.rho:g}"


@dataclass(frozen=True)
class Wanted:
    """Which candidates are wanted. By "classes": a channel is important for a picture from ``tau``
    of the positive relevance, serves a label from ``share`` of its pictures, of which there are
    ``least``. By "splits": from stable splits, ``derive`` of them made now. Either way two groups
    are unlike when the cosine of their relevance vectors is below ``gamma``."""

    by: str = "classes"
    tau: float = TAU
    share: float = SHARE
    gamma: float = GAMMA
    least: int = LEAST
    derive: int = DERIVED


def advice(wanted: Wanted, channels: int, looked: int) -> str:
    """What to loosen where no candidate was found among ``looked`` of a layer's ``channels``.

    tau = 0.03 is the paper's, for a layer of 2,048 channels of which few matter to a class. Where
    relevance is spread evenly a channel has 1 / channels of it; a few times that is far from noise.
    """
    start = f"None of {looked:,} channels is polysemantic by these thresholds: "
    if wanted.by == "splits":
        return f"{start}raise the cosine (gamma), or let more splits be made (derive)."
    spread = f"{4 / channels:.1g}"
    if wanted.tau > float(spread):
        return (
            f"{start}lower the importance (tau) to {spread}, four times an even share among "
            f"{channels:,} channels, and the share of pictures to 0.5."
        )
    return f"{start}lower the share of pictures (share), or raise the cosine (gamma)."


def operation(text: str) -> Operation:
    """Read the text form of an operation; BadInput when it is none."""
    parts = text.split("~")
    try:
        neuron, by, rule, rho = parts
        Neuron.parse("", neuron)
        named = re.fullmatch(r"([a-z_]+)-(\d)-(\d{1,4})", by)
        if named:
            method, k, count = named[1], int(named[2]), int(named[3])
            return Operation(neuron, (), method, k, count, rule, float(rho))
        groups = tuple(tuple(int(n) for n in group.split(".")) for group in by.split(","))
        return Operation(neuron, groups, rule=rule, rho=float(rho))
    except (ValueError, BadInput) as error:
        raise BadInput(
            f"'{text[:60]}' is no operation of surgery: choose the channel and concepts anew."
        ) from error


def check(operation: Operation, images: ImageSet) -> None:
    """Raise BadInput unless the operation can be tried on these pictures."""
    if operation.rule not in RULES:
        raise BadInput(f"The rule is one of {', '.join(RULES)}, not '{operation.rule[:40]}'.")
    if operation.rho and not 0.0 < operation.rho <= 1.0:
        raise BadInput(f"rho lies above 0 and at most at 1, not at {operation.rho:g}.")
    if not operation.classes:
        return
    if not 2 <= len(operation.classes) <= MOST_CONCEPTS:
        raise BadInput(f"Give 2 to {MOST_CONCEPTS} concepts, not {len(operation.classes)}.")
    seen: set[int] = set()
    for number in (number for group in operation.classes for number in group):
        if not 0 <= number < len(images.label_names):
            raise BadInput(f"There is no label number {number} among the pictures' labels.")
        name = images.label_names[number]
        if number in seen:
            raise BadInput(f"Label '{name}' stands on both sides: each belongs to one concept.")
        if not (images.labels == number).any():
            raise BadInput(f"Label '{name}' has no pictures in {images.name}: choose another.")
        seen.add(number)


def labels_named(images: ImageSet, text: str) -> tuple[int, ...]:
    """The numbers of labels named ``A|B|...``; BadInput, naming near ones, where one is unknown."""
    import difflib

    numbers = {name.casefold(): number for number, name in enumerate(images.label_names)}
    if not numbers:
        raise BadInput(f"The pictures of {images.name} have no labels: give a split instead.")
    found = []
    for name in (part.strip() for part in text.split("|")):
        if name.casefold() not in numbers:
            near = difflib.get_close_matches(name.casefold(), list(numbers), 3, 0.4)
            hint = f"did you mean {', '.join(near)}?" if near else "see their folders."
            raise BadInput(f"No picture of {images.name} is labelled '{name[:60]}': {hint}")
        found.append(numbers[name.casefold()])
    return tuple(found)


def maker(workspace: Workspace, layer: str) -> Question:
    """What makes the channels of a layer."""
    return Question("maker", workspace, layer, {}, f"Finding what makes {layer[:60]}")


def candidates(workspace: Workspace, layer: str, wanted: Wanted) -> Question:
    """Channels that serve unlike things."""
    if wanted.by not in ("classes", "splits"):
        raise BadInput(f"Candidates are found by classes or splits, not '{wanted.by[:40]}'.")
    for name in ("tau", "share", "gamma"):
        if not 0 <= getattr(wanted, name) <= 1:
            raise BadInput(f"{name} lies between 0 and 1, not at {getattr(wanted, name):g}.")
    if wanted.least < 1 or not 0 <= wanted.derive <= 10_000:
        raise BadInput("Ask for at least one picture per label, and 0 to 10000 splits.")
    title = f"Looking for polysemantic channels of {layer[:60]}"
    return Question("candidates", workspace, layer, asdict(wanted), title)


def relevance(workspace: Workspace, path: str, tau: float) -> Question:
    """How the layer at a module path serves the labels."""
    return Question("class_relevance", workspace, path, {"tau": tau})


def report(workspace: Workspace, operations: Sequence[Operation], pictures: int) -> Question:
    """The operations in order, judged."""
    if not 1 <= len(operations) <= MOST_OPERATIONS:
        raise BadInput(f"Give 1 to {MOST_OPERATIONS} operations, not {len(operations)}.")
    for each in operations:
        Neuron.parse(workspace.name, each.neuron)
    if not 1 <= pictures <= 1_000_000:
        raise BadInput(f"Compare the networks on at least one picture, not on {pictures}.")
    args = {
        "operations": [each.text for each in operations],
        "pictures": pictures,
        "embedder": workspace.embedder,
    }
    channels = f" and {len(operations) - 1} more" if len(operations) > 1 else ""
    title = f"Dividing channel {operations[0].neuron[:60]}{channels}"
    return Question("surgery", workspace, "", args, title)


def edited(workspace: Workspace, operations: Sequence[Operation]) -> Question:
    """The edited network as files."""
    args = {"operations": report(workspace, operations, 1).args["operations"]}
    return Question("edited", workspace, "", args, "Writing the edited network")


def parts(workspace: Workspace, operations: Sequence[Operation]) -> Question:
    """What the parts that the last operation makes give on all pictures."""
    return replace(edited(workspace, operations), kind="parts")


def incision(
    workspace: Workspace, operation: Operation, before: Sequence[Operation], path: str
) -> Question:
    """One operation after others of the same layer."""
    args = {"operation": operation.text, "before": [each.text for each in before]}
    return Question("incision", workspace, path, args, f"Dividing channel {operation.neuron[:60]}")


def split_of(workspace: Workspace, operation: Operation, shown: str) -> SplitQuestion:
    """The split whose virtual neurons are the concepts, of the channel on a browsable layer."""
    channel = Neuron.parse("", operation.neuron).channel
    params: dict[str, Any] = {} if operation.k == 0 else {"k": operation.k}
    query = ReferenceQuery(count=operation.references)
    asked = SplitQuestion(Neuron(workspace.name, shown, channel), operation.method, params, query)
    questions.split(workspace, asked)
    return asked


def renamed(network: EditedNetwork, file: str) -> str:
    """The JSON text of an edited network whose weights are called ``file``."""
    listed = edit_list.from_json(network.edits, "edits")
    return edit_list.to_json(replace(listed, file=file))
