"""Questions about many neurons, answered in parts by a cluster.

Each actor answers its part into a store of its own; what it stored is put into ours, and the whole
question, asked as ever, finds it there. So the answer is that of a single machine, and what was
done before a stop is not done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from explorer.answers.room import Room
from explorer.compute.engine import LOCAL, Cluster
from explorer.keys import Identity, Question, job_args, key, question_from
from explorer.lab import Report
from explorer.lock import actors_folder
from explorer.records import ExplorerError, Neuron, Unavailable
from explorer.settings import Settings
from explorer.store import Store

PARTS_PER_ACTOR = 2
LEAST_PART = 8
"""Neurons that an actor takes at a time: few parts waste less on pictures that neurons share, many
end more evenly."""

Stored = list[tuple[str, bytes, float | None]]
"""Keys, bytes and for how long."""
Part = Callable[[Room, Question, Identity, Report], object]


def answer_ahead(
    room: Room,
    question: Question,
    identity: Identity,
    channels: Sequence[int],
    splits: Sequence[Mapping[str, Any]],
    part: Part,
    report: Report,
) -> None:
    """On a cluster, if there is one: put into the store what ``part`` asks of the channels, those
    of which some split is not stored. ``part`` is a function of a module; it is told its channels
    by ``question.args["only"]``. What an actor cannot answer is left to the whole question."""
    if room.settings.engine == LOCAL:
        return
    todo = [c for c in channels if not _answered(room, question, identity, c, splits)]
    if not todo:
        return
    with room.cluster() as cluster:
        assert cluster is not None
        room.lab(question, identity).scan_layers([question.subject], report, cluster)
        _spread(room, cluster, (question, identity), todo, part, report)


def _spread(
    room: Room,
    cluster: Cluster,
    about: tuple[Question, Identity],
    channels: Sequence[int],
    part: Part,
    report: Report,
) -> None:
    question, identity = about
    size = max(LEAST_PART, -(-len(channels) // (PARTS_PER_ACTOR * cluster.actors)))
    parts = [list(channels[at : at + size]) for at in range(0, len(channels), size)]
    tasks = [
        job_args(replace(question, args={**question.args, "only": some}), identity)
        for some in parts
    ]
    done = 0

    def tell() -> None:
        report(done / len(channels), f"{done} of {len(channels)} neurons by {cluster.size}")

    make = (room.settings, cluster.device, question.kind, part)
    for some, stored in zip(parts, cluster.map(answerer, make, tasks, tell), strict=True):
        for name, data, expire in stored:
            room.store.put_bytes(name, data, expire)
        done += len(some)
        tell()


@contextmanager
def answerer(
    settings: Settings, device: str, kind: str, part: Part
) -> Iterator[Callable[[Mapping[str, Any]], Stored]]:
    """What an actor does with a part of a question: what it stored is its answer. It reads the
    scans and pictures of the machine that asks, which it must see under the same path."""
    seen = settings.cache_dir / "scans"
    if not seen.is_dir():
        raise Unavailable(
            f"A machine of the Ray cluster does not see {seen}: put EXPLORER_CACHE_DIR and the "
            "pictures where all its machines find them under the same path."
        )
    with actors_folder() as own:
        for name in ("scans", "data"):
            (own / name).symlink_to(settings.cache_dir / name)
        outbox = Outbox(own, settings.cache_gb)
        room = Room(replace(settings, cache_dir=own, device=device, engine=LOCAL), outbox)

        def answer(args: Mapping[str, Any]) -> Stored:
            with suppress(ExplorerError):  # the whole question will meet it too, and say so
                part(room, *question_from(kind, args), _silent)
            return outbox.take()

        yield answer


class Outbox(Store):
    """A store that remembers what was put into it since it was last asked."""

    def __init__(self, folder: Path, gigabytes: float) -> None:
        super().__init__(folder, gigabytes)
        self._new: Stored = []

    def put_bytes(self, key: str, data: bytes, expire: float | None = None) -> None:
        super().put_bytes(key, data, expire)
        self._new.append((key, data, expire))

    def take(self) -> Stored:
        """What is new."""
        taken, self._new = self._new, []
        return taken


def _answered(
    room: Room,
    question: Question,
    identity: Identity,
    channel: int,
    splits: Sequence[Mapping[str, Any]],
) -> bool:
    address = Neuron(question.workspace.name, question.subject, channel).address
    about = replace(question, kind="split", subject=address)
    return all(key(replace(about, args=split), identity) in room.store for split in splits)


def _silent(fraction: float, message: str) -> None:
    """Actors report by their answers."""
