"""The same scan in this process and by Ray's actors on the same cores."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.options import Bench, Options
from benchmarks.scanning import blocks, cut
from explorer.arrays import ScanArrays
from explorer.compute import scan as scanning
from explorer.compute.engine import SCHEME, Cluster
from explorer.scan_writer import ScanWriter

Told = list[tuple[float, float]]
"""When something was reported, and which share was done."""


def measure(options: Options) -> dict[str, Any]:
    """Start-up, pictures per second from the first answer on, and whether the arrays are equal."""
    if importlib.util.find_spec("ray") is None:
        why = "Ray is not installed: pip install -r requirements-ray.txt."
        return {"ray_scan_skipped": why, "ray_scan_over_local": None}
    bench = Bench(options)
    lab = bench.lab()
    images = cut(lab.images, min(len(lab.images), 128 if options.quick else 1536))
    found = [lab.network.layer(name) for name in blocks(lab.model)]

    def local(writer: ScanWriter, report: Any) -> None:
        scanning.scan(lab.model, images, writer, report)

    def ray(writer: ScanWriter, report: Any) -> None:
        with Cluster(SCHEME, "cpu") as cluster:
            scanning.scan_on(cluster, bench.workspace, images, writer, report)

    figures: dict[str, Any] = {}
    for name, run in (("local", local), ("ray", ray)):
        arrays = ScanArrays(options.folder / name / "scan")
        with arrays.writer(found, len(images)) as writer:
            told = timed(run, writer)
        figures[f"ray_scan_{name}_seconds"] = told[-1][0]
        figures[f"ray_scan_{name}_first_answer_seconds"] = told[0][0]
        (first, share), (last, _) = told[0], told[-1]
        figures[f"ray_scan_{name}_images_per_s"] = len(images) * (1 - share) / (last - first)
    speeds = [figures[f"ray_scan_{name}_images_per_s"] for name in ("ray", "local")]
    figures["ray_scan_over_local"] = speeds[0] / speeds[1]
    figures["ray_scan_values_that_differ"] = differing(
        options.folder, [each.name for each in found]
    )
    return figures


def timed(run: Callable[[ScanWriter, Any], None], writer: ScanWriter) -> Told:
    """What a scan reported, with seconds since it began."""
    start = time.perf_counter()
    told: Told = []

    def report(fraction: float, message: str) -> None:
        if fraction > 0:
            told.append((time.perf_counter() - start, fraction))

    run(writer, report)
    return told


def differing(folder: Path, layers: list[str]) -> int:
    """How many stored numbers of the two scans are not equal."""
    count = 0
    for layer in layers:
        one, other = (ScanArrays(folder / name / "scan").read(layer) for name in ("local", "ray"))
        assert one is not None
        assert other is not None
        for name in ("maximum", "mean", "position"):
            count += int(np.sum(getattr(one, name)[:] != getattr(other, name)[:]))
    return count
