"""Relevance of many neurons, picture by picture, so that a picture runs forward once however many
cite it. Rows are kept in a file as they come, so that a sweep goes on where it ended."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from explorer.compute import attribution, views
from explorer.compute.batching import in_batches
from explorer.compute.device import choose_device, give_back
from explorer.compute.engine import Cluster
from explorer.compute.lower_maps import DISK_GB, LowerMaps
from explorer.compute.scan import to_input
from explorer.disk import private_folder, storing
from explorer.lab import Report
from explorer.lock import actors_folder
from explorer.networks.graph import Network
from explorer.networks.zoo import load
from explorer.records import ImageSet, References, Workspace
from explorer.store import Store

PAIRS = {"cpu": 128, "cuda": 2048}
PICTURES = 32
"""How many pairs, by the kind of device, and at most how many pictures a batch holds."""
AHEAD = 32
"""Of how many pictures lower maps are made at once."""
TIDY = 256
"""After how many pictures memory is given back, on a CPU: what stays of each, in between what goes,
leaves gaps that are too small for the next."""
NOTE_SECONDS = 5.0
"""How often what is done is noted: what a kill costs."""

Task = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of a batch: pictures i64[B], channels i64[P], the picture of each pair, 0 to B-1, i64[P]."""
Spread = Callable[[Sequence[Task], Callable[[], None]], Iterator[np.ndarray]]
"""(batches, what to call while waiting) -> the rows f32[P,D] of each, in order."""
Relevance = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(pictures i64[B], channels i64[P], the picture of each pair, 0 to B-1, i64[P]) -> f32[P,D]"""


def attributing(
    network: Network, maps: LowerMaps, between: tuple[str, str], rule: str, among: int = 1
) -> Relevance:
    """Relevance between two layers, lower and upper, of pictures whose lower maps are at hand or
    made; ``among`` as ``LowerMaps`` has it, which where it is not 0 keeps what is known of the
    pictures too."""
    piece = network.slice(*between)

    def relevance(pictures: np.ndarray, channels: np.ndarray, rows: np.ndarray) -> np.ndarray:
        inputs = maps.of(network, piece, pictures, among)
        known = maps.known(network, piece, rule, pictures, inputs, among) if among else {}
        pairs = torch.from_numpy(channels), torch.from_numpy(rows)
        found = attribution.relevance(piece, inputs, *pairs, rule, known=known)
        return found.float().cpu().numpy()

    return relevance


def making(
    network: Network, maps: LowerMaps, between: tuple[str, str], among: int
) -> Callable[[np.ndarray], object]:
    """Makes the lower maps of pictures that come soon; ``among`` as ``LowerMaps`` has it."""
    piece = network.slice(*between)
    return lambda pictures: maps.of(network, piece, pictures, among)


def here(
    relevance: Relevance, get_ready: Callable[[np.ndarray], object], tidy: bool = True
) -> Spread:
    """Batches one after the other in this process; they halve where memory is short. ``get_ready``
    is told the pictures of several batches before these come: many batches have a single picture,
    on which a network is slow."""

    def spread(tasks: Sequence[Task], idle: Callable[[], None]) -> Iterator[np.ndarray]:
        expected = since = 0
        for number, task in enumerate(tasks):
            since += len(task[0])
            if tidy and since > TIDY:
                give_back()
                since = 0
            if number == expected:
                soon: list[np.ndarray] = []
                while expected < len(tasks) and sum(map(len, soon)) < AHEAD:
                    soon.append(tasks[expected][0])
                    expected += 1
                in_batches(get_ready, np.concatenate(soon), AHEAD)
            yield _whole(relevance, task)

    return spread


def on(
    cluster: Cluster, workspace: Workspace, images: ImageSet, between: tuple[str, str], rule: str
) -> Spread:
    """The same batches by the actors of a cluster."""

    def spread(tasks: Sequence[Task], idle: Callable[[], None]) -> Iterator[np.ndarray]:
        named = [(task, [images.paths[image] for image in task[0]]) for task in tasks]
        make = (workspace, images.root, cluster.device, between, rule)
        return cluster.map(attributer, make, named, idle)

    return spread


@contextmanager
def attributer(
    workspace: Workspace, root: str, device: str, between: tuple[str, str], rule: str
) -> Iterator[Callable[[tuple[Task, Sequence[str]]], np.ndarray]]:
    """What an actor does with a batch and the paths of its pictures."""
    loaded = load(workspace.network, workspace.weights)
    network = Network.build(loaded, choose_device(device))
    paths: dict[int, str] = {}

    def decoded(index: np.ndarray) -> torch.Tensor:
        names = [paths[image] for image in index.tolist()]
        return to_input(np.stack(views.decoded(root, names, network.info.preprocess)), network)

    with actors_folder() as folder:
        kept = LowerMaps(decoded, Store(folder, DISK_GB), root)
        relevance = attributing(network, kept, between, rule, among=0)

        def work(given: tuple[Task, Sequence[str]]) -> np.ndarray:
            task, names = given
            paths.update(zip(task[0].tolist(), names, strict=True))
            return _whole(relevance, task)

        yield work


def _whole(relevance: Relevance, task: Task) -> np.ndarray:
    """f32[P,D] of a batch: where memory is short, of fewer pictures at a time, and then of fewer
    neurons that cite one."""
    pictures, channels, image = task
    found: dict[int, np.ndarray] = {}

    def some(pairs: np.ndarray, own: np.ndarray) -> None:
        rows = relevance(pictures[own], channels[pairs], image[pairs] - own[0])
        found.update(zip(pairs.tolist(), rows, strict=True))

    def part(own: np.ndarray) -> None:
        pairs = np.flatnonzero((image >= own[0]) & (image <= own[-1]))
        if len(own) > 1:
            some(pairs, own)
        else:
            in_batches(lambda few: some(few, own), pairs, len(pairs))

    in_batches(part, np.arange(len(pictures)), len(pictures))
    return np.stack([found[pair] for pair in range(len(image))])


class Pairs:
    """The references of many neurons as pairs of a picture and a channel, neuron after neuron."""

    def __init__(self, references: Sequence[References]) -> None:
        counts = [len(each.index) for each in references]
        self.first = np.concatenate([[0], np.cumsum(counts)])
        self.channel = np.repeat([each.neuron.channel for each in references], counts)
        index = np.concatenate([each.index for each in references])
        self.picture, self.row = np.unique(index, return_inverse=True)
        self._order = np.argsort(self.row, kind="stable")
        self._start = np.searchsorted(self.row[self._order], np.arange(len(self.picture) + 1))

    def __len__(self) -> int:
        return len(self.channel)

    def of(self, rows: np.ndarray) -> np.ndarray:
        """The pairs of some pictures, named by their rows, picture after picture."""
        return np.concatenate([self._order[self._start[r] : self._start[r + 1]] for r in rows])

    def task(self, rows: np.ndarray) -> Task:
        """What is to be computed of some pictures."""
        chosen, order = self.of(rows), np.sort(rows)
        image = np.searchsorted(order, self.row[chosen])
        return self.picture[order], self.channel[chosen], image

    def batches(self, done: np.ndarray, device: str = "cpu") -> Iterator[np.ndarray]:
        """Rows of pictures not ``done`` bool[U], those of about equally many pairs together, for a
        kind of device."""
        counts = np.diff(self._start)
        waiting = np.flatnonzero(~done)
        waiting = waiting[np.argsort(-counts[waiting], kind="stable")]
        while len(waiting):
            size = int(np.clip(PAIRS[device] // counts[waiting[0]], 1, PICTURES))
            yield waiting[:size]
            waiting = waiting[size:]


class Ledger:
    """Rows f32[P,D] on their way, in a folder of their own, and which of the pictures are done.
    What another work of the same kind (``about`` tells them apart) left there is thrown away."""

    def __init__(self, folder: Path, about: str, width: int, pictures: int) -> None:
        private_folder(folder)
        with storing(folder):
            if [path.name for path in folder.iterdir()] != [about]:
                shutil.rmtree(folder)
        self.folder = folder = private_folder(folder / about)
        self._width = width
        self._noted = folder / "done"
        self._fresh: list[int] = []
        self._since = time.monotonic()
        self._beside = ThreadPoolExecutor(1, "ledger")  # a disk may take a while
        self._noting: Future[None] | None = None
        self.done = np.zeros(pictures, bool)
        with storing(folder):
            self._file = os.open(folder / "rows", os.O_RDWR | os.O_CREAT, 0o600)
            if self._noted.exists():
                self.done[np.fromfile(self._noted, "<i8")] = True

    def write(self, pictures: np.ndarray, pairs: np.ndarray, rows: np.ndarray) -> None:
        """Keep the rows of these pairs, which are all those of these pictures."""
        with storing(self.folder):
            for pair, row in zip(pairs.tolist(), np.asarray(rows, np.float32), strict=True):
                os.pwrite(self._file, row.tobytes(), 4 * self._width * pair)
        self.done[pictures] = True
        self._fresh += pictures.tolist()
        if time.monotonic() - self._since > NOTE_SECONDS:
            self._settle()
            fresh, self._fresh, self._since = self._fresh, [], time.monotonic()
            self._noting = self._beside.submit(self._note, fresh)

    def read(self, first: int, end: int) -> np.ndarray:
        """f32[end - first, D]: the rows of successive pairs."""
        size = 4 * self._width
        with storing(self.folder):
            data = os.pread(self._file, size * (end - first), size * first)
        return np.frombuffer(data, np.float32).reshape(end - first, self._width)

    def remove(self) -> None:
        """Nothing of it is needed any more."""
        self._settle()
        with storing(self.folder):
            shutil.rmtree(self.folder.parent)
        self._fresh = []

    def _settle(self) -> None:
        """Wait for the note that is being made."""
        if self._noting is not None:
            self._noting.result()
            self._noting = None

    def _note(self, fresh: Sequence[int]) -> None:
        with storing(self.folder):
            os.fsync(self._file)
            with open(self._noted, "ab") as file:
                file.write(np.array(fresh, "<i8").tobytes())

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._settle()
            if self._fresh:
                self._note(self._fresh)
        finally:
            self._beside.shutdown()
            os.close(self._file)


def rows_of(
    ledger: Ledger, pairs: Pairs, spread: Spread, report: Report, device: str = "cpu"
) -> Iterator[np.ndarray]:
    """Neuron after neuron, the rows f32[K,D] of its references, when all are there, by a kind of
    device."""

    def tell() -> None:
        done = int(ledger.done.sum())
        report(done / len(ledger.done), f"Relevance: {done:,} of {len(ledger.done):,} pictures")

    batches = list(pairs.batches(ledger.done, device))
    tasks = [pairs.task(rows) for rows in batches]
    for rows, found in zip(batches, spread(tasks, tell), strict=True):
        ledger.write(rows, pairs.of(rows), found)
        tell()
    for first, end in itertools.pairwise(pairs.first.tolist()):
        yield ledger.read(first, end)
    ledger.remove()
