"""Files of Debian packages: as installed, or downloaded by apt without root and unpacked."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from explorer.records import Unavailable

Report = Callable[[float, str], None]

_LIMIT = 1800.0
_OPTIONS = ("-q", "-o", "Acquire::http::Timeout=15", "-o", "Acquire::Retries=1")


def locate(
    packages: Mapping[str, str], system: Path, scratch: Path, report: Report
) -> dict[str, Path]:
    """For each package (name -> a path it holds, relative to /) the folder that stands for /.

    ``system`` is / when not testing. Packages that it lacks are downloaded into ``scratch``.
    ``report`` is called while that runs and may raise to stop it. Raises Unavailable.
    """
    absent = [name for name, path in packages.items() if not (system / path).exists()]
    if absent:
        _download(absent, scratch, report)
    roots = {name: scratch if name in absent else system for name in packages}
    for name, path in packages.items():
        if not (roots[name] / path).exists():
            raise Unavailable(_advice(f"its package {name} here lacks /{path}"))
    return roots


def _download(names: list[str], scratch: Path, report: Report) -> None:
    lacking = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if lacking:
        raise Unavailable(_advice(f"{lacking[0]} is missing"))
    folder = scratch / "packages"
    folder.mkdir(parents=True)

    def fetching() -> None:
        megabytes = sum(file.stat().st_size for file in folder.glob("*.deb")) / 1e6
        report(min(megabytes / 420, 0.5), f"Fetching the demo pictures: {megabytes:.0f} MB")

    error = _run(["apt-get", *_OPTIONS, "download", *names], folder, fetching)
    if error:
        # The machine's own package lists may be empty, as in most containers: read private ones.
        private = ["apt-get", *_OPTIONS, *_private_lists(scratch)]
        error = _run([*private, "update"], folder, fetching)
        error = error or _run([*private, "download", *names], folder, fetching)
    if error:
        raise Unavailable(_advice(f"apt cannot download {' and '.join(names)}: {error}"))
    for archive in sorted(folder.glob("*.deb")):
        error = _run(
            ["dpkg-deb", "-x", str(archive), str(scratch)],
            folder,
            lambda: report(0.5, "Unpacking the demo pictures"),
        )
        if error:
            raise Unavailable(_advice(f"{archive.name} cannot be unpacked: {error}"))
        archive.unlink()


def _private_lists(scratch: Path) -> list[str]:
    """Options that let apt read package lists into ``scratch``, as any user."""
    places = {"Dir::State": scratch / "apt" / "state", "Dir::Cache": scratch / "apt" / "cache"}
    for place in places.values():
        (place / "lists" / "partial").mkdir(parents=True)
        (place / "archives" / "partial").mkdir(parents=True)
    status = scratch / "apt" / "status"
    status.touch()
    # The empty status file stands for an unknown set of installed packages: none matter here.
    places["Dir::State::status"] = status
    return [part for name, place in places.items() for part in ("-o", f"{name}={place}")]


def _run(command: list[str], folder: Path, tick: Callable[[], None]) -> str:
    """Run to the end, ticking meanwhile: "" when done, else the last line of complaint."""
    log = folder.parent / "log.txt"
    environment = {**os.environ, "LC_ALL": "C"}
    started = time.monotonic()
    with log.open("w+") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            while process.poll() is None:
                time.sleep(0.1)
                tick()
                if time.monotonic() - started > _LIMIT:
                    return f"no end after {_LIMIT / 60:.0f} minutes"
        finally:
            process.kill()
            process.wait()
    complaints = [line for line in log.read_text(errors="replace").splitlines() if line[:2] == "E:"]
    last = complaints[-1][2:].strip()[:150] if complaints else f"{command[0]} failed"
    return last if process.returncode else ""


def _advice(reason: str) -> str:
    return (
        f"The demo pictures cannot be fetched ({reason.rstrip('.')}): connect to the internet and "
        "run 'sudo apt-get update' on Debian or Ubuntu, or set the workspace's images to a folder "
        "of yours or to imagenette."
    )
