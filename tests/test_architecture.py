"""The order of the house, read off the syntax trees: who may import whom, how long things are."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parent.parent

# Rooms from the ground up: which modules of `explorer` (or the front's scripts) live in each, the
# longest matching name winning, and which rooms they may import besides their own.
ROOMS: dict[str, tuple[str, ...]] = {
    "records": ("explorer.records",),
    "processes": ("explorer.child",),
    "reading": ("explorer.lab", "explorer.browse", "explorer.keys", "explorer.planting"),
    "store": (
        "explorer.settings",
        "explorer.recent",
        "explorer.store",
        "explorer.codec",
        "explorer.disk",
        "explorer.lock",
        "explorer.logs",
        "explorer.arrays",
        "explorer.scan_files",
        "explorer.scan_writer",
        "explorer.shards",
        "explorer.jobs",
        "explorer.job_table",
    ),
    "images": ("explorer.images",),
    "identity": (
        "explorer.networks.identity",
        "explorer.networks.edit_list",
        "explorer.networks.dividing",
        "explorer.embedders",
    ),
    "networks": ("explorer.networks",),
    "clustering": (
        "explorer.compute.clustering",
        "explorer.compute.choosing",
        "explorer.compute.lloyd",
        "explorer.compute.plane",
        "explorer.compute.gram",
        "explorer.compute.one_core",
        "explorer.compute.division",
        "explorer.compute.beside",
    ),
    "compute": ("explorer.compute",),
    "concepts": ("explorer.concepts",),
    "methods": ("explorer.methods",),
    "scores": ("explorer.scores",),
    "figures": ("explorer.figures",),
    "backend": (
        "explorer.backend",
        "explorer.desk",
        "explorer.questions",
        "explorer.operations",
        "explorer.benchmark",
        "explorer.surgery_desk",
        "explorer.explaining",
        "explorer.explanations",
        "explorer.studies",
        "explorer.exports",
        "explorer.previews",
    ),
    "worker": ("explorer.worker", "explorer.answers"),
    "serve": ("explorer.serve",),
    "ui": ("explorer.ui",),
    "front": ("app", "pages"),
    "command line": (
        "explorer.__main__",
        "explorer.commands",
        "explorer.session",
        "explorer.doctor",
    ),
}
MAY_IMPORT: dict[str, set[str]] = {
    "records": set(),
    "processes": set(),
    "reading": {"records"},
    "store": {"records"},
    "images": {"records", "processes"},
    "identity": {"records"},
    "networks": {"records", "identity"},
    "clustering": {"records", "processes"},
    "compute": {"records", "reading", "store", "images", "identity", "networks", "clustering"},
    "concepts": {"records"},
    "methods": {"records", "reading", "clustering"},
    "scores": {"records", "clustering"},
    "figures": {"records", "reading", "images"},
    "backend": {
        *("records", "reading", "store", "images", "identity", "concepts", "methods", "figures"),
    },
    "worker": {
        *("records", "reading", "store", "images", "identity", "networks", "clustering"),
        *("compute", "concepts", "methods", "scores", "figures", "backend"),
    },
    "serve": {"records", "store", "worker"},
    "ui": {"records", "store", "concepts", "methods", "backend", "serve"},
    "front": {"records", "ui"},
    "command line": {
        *("records", "reading", "store", "images", "identity", "compute", "concepts", "methods"),
        *("figures", "backend", "worker", "serve"),
    },
}

# Libraries that only some rooms may import, and modules that may although their room may not.
ONLY_IN: dict[str, set[str]] = {
    "streamlit": {"ui", "front"},
    "torch": {"networks", "compute"},
    "torchvision": {"networks", "compute"},
    "timm": {"networks", "compute"},
    "zennit": {"networks", "compute"},
    "llvmlite": {"networks"},
    "open_clip": {"networks", "compute"},
    "ray": {"compute"},
    "diskcache": {"store"},
    "matplotlib": {"figures"},
}
EXCUSED = {
    ("explorer.images.imagenette", "torchvision"): "torchvision downloads Imagenette, if asked to",
}
WORKER_ONLY = (
    *("torch", "torchvision", "timm", "zennit", "open_clip"),
    *("sklearn", "scipy", "matplotlib", "onnxruntime", "ray", "llvmlite"),
)
"""What the web process must never load: memory, start and every rerun would suffer."""

PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
REFUSAL = "pickle.UnpicklingError"
"""What torch raises when it refuses a checkpoint that holds more than tensors."""

LONGEST_FUNCTION = 60
LONGEST_FILE = 300
LONG_FOR_A_REASON: dict[str, str] = {}
"""Path -> why it may exceed the limits."""


@cache
def sources() -> dict[str, Path]:
    """Every module of the product: dotted name -> file."""
    files = [*HOME.glob("explorer/**/*.py"), HOME / "app.py", *HOME.glob("pages/*.py")]
    return {dotted(path): path for path in sorted(files)}


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(HOME).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported, inside functions too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def own_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module name of every module of the product that a file imports."""
    for line, name in imports(path):
        known = name if name in sources() else name.rpartition(".")[0]
        if known in sources():
            yield line, known


def room_of(module: str) -> str:
    """The room whose prefix fits the module most closely; fails when it lives nowhere."""
    fits = [
        (len(prefix), room)
        for room, prefixes in ROOMS.items()
        for prefix in prefixes
        if module == prefix or module.startswith(f"{prefix}.")
    ]
    assert fits, f"{module} has no room: give it one in ROOMS"
    return max(fits)[1]


def test_every_room_exists_and_is_furnished() -> None:
    assert ROOMS.keys() == MAY_IMPORT.keys()
    lived_in = {room_of(module) for module in sources() if module != "explorer"}
    assert lived_in == ROOMS.keys()


def test_imports_point_down() -> None:
    wrong = [
        f"{path.relative_to(HOME)}:{line}: {room_of(module)} imports {target} ({room_of(target)})"
        for module, path in sources().items()
        for line, target in own_imports(path)
        if target != "explorer"
        and room_of(target) not in {room_of(module), *MAY_IMPORT[room_of(module)]}
    ]
    assert not wrong, "\n".join(wrong)


def test_rooms_have_an_order() -> None:
    placed: set[str] = set()
    for room, below in MAY_IMPORT.items():
        assert below <= placed, f"{room} may import {below - placed}, which stand above it"
        placed.add(room)


def test_no_module_imports_itself_through_others() -> None:
    graph = {name: {to for _, to in own_imports(path)} for name, path in sources().items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"cycle: {' -> '.join((*trail, module))}"
        if module not in done:
            for target in sorted(graph[module] - {module}):
                visit(target, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_stays_in_its_rooms(library: str) -> None:
    wrong = [
        f"{path.relative_to(HOME)}:{line} imports {name}"
        for module, path in sources().items()
        for line, name in imports(path)
        if name.split(".")[0] == library
        and (module == "explorer" or room_of(module) not in ONLY_IN[library])
        and (module, library) not in EXCUSED
    ]
    assert not wrong, "\n".join(wrong)


def test_methods_do_not_import_one_another() -> None:
    registry = "explorer.methods.registry"
    methods = {to for _, to in own_imports(sources()[registry])} - {"explorer.methods.method"}
    methods = {module for module in methods if module.startswith("explorer.methods.")}
    assert len(methods) > 1
    for module in methods:
        others = {to for _, to in own_imports(sources()[module])} & (methods - {module})
        assert not others, f"{module} imports {others}"


def test_nothing_unpickles() -> None:
    wrong = [
        f"{path.relative_to(HOME)}:{line} imports {name}"
        for path in sources().values()
        for line, name in imports(path)
        if name.split(".")[0] in PICKLERS and name != REFUSAL
    ]
    for path in sources().values():
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Call):
                continue
            said = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
            where = f"{path.relative_to(HOME)}:{node.lineno}"
            if ast.unparse(node.func) == "torch.load" and said.get("weights_only") is not True:
                wrong.append(f"{where} torch.load without weights_only=True")
            if said.get("allow_pickle") or said.get("shell"):
                wrong.append(f"{where} allow_pickle or shell")
    assert not wrong, "\n".join(wrong)


def test_no_module_is_called_utils() -> None:
    vague = {"utils", "util", "helpers", "misc", "common"}
    assert not [name for name in sources() if vague & set(name.split("."))]


def test_functions_and_files_are_short() -> None:
    wrong = []
    for path in [*sources().values(), *HOME.glob("tests/**/*.py"), *HOME.glob("benchmarks/*.py")]:
        name = path.relative_to(HOME).as_posix()
        if name in LONG_FOR_A_REASON:
            continue
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if path in sources().values() and lines > LONGEST_FILE:
            wrong.append(f"{name} has {lines} lines")
        wrong += [
            f"{name}:{node.lineno} {node.name} has {length} lines"
            for node in ast.walk(tree(path))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
        ]
    assert not wrong, "\n".join(wrong)
    assert all((HOME / name).exists() for name in LONG_FOR_A_REASON)


@pytest.mark.parametrize("who", ["web", "command line"])
def test_process_starts_without_heavy_libraries(who: str) -> None:
    light = {"web": {"backend", "ui", "serve"}, "command line": {"command line"}}[who]
    modules = [m for m in sources() if m != "explorer" and room_of(m) in light]
    assert modules
    code = (
        f"import sys, importlib\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(*[name for name in {WORKER_ONLY!r} if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [], f"loaded by {modules}"


def test_every_library_that_is_imported_is_pinned() -> None:
    files = [HOME / "requirements.txt", HOME / "requirements-ray.txt"]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+(\[\w+\])?==[\w.+-]+", line) for line in lines), "pin with =="
    pinned = {canonical(re.split(r"\[|==", line)[0]) for line in lines}
    providers = importlib.metadata.packages_distributions()
    files = [*sources().values(), *HOME.glob("tests/**/*.py"), *HOME.glob("benchmarks/*.py")]
    for name in ("peer.py", "peer_scan.py"):  # they run in an environment of the peer's own
        files.remove(HOME / "benchmarks" / name)
    own = {"explorer", "benchmarks", *(path.stem for path in HOME.glob("tests/*.py"))}
    wrong = set()
    for path in files:
        for line, name in imports(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in own:
                continue
            if not pinned & {canonical(each) for each in providers.get(top, [top])}:
                wrong.add(f"{path.relative_to(HOME)}:{line} imports {top}, which is not pinned")
    assert not wrong, "\n".join(sorted(wrong))


def canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@pytest.mark.parametrize("module", ["explorer.networks.graph", "benchmarks.relevance"])
def test_threads_are_told_to_wait_asleep_before_torch_is_loaded(module: str) -> None:
    watch = (
        "import importlib, os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            print(os.environ.get('OMP_WAIT_POLICY'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"importlib.import_module({module!r})\n"
    )
    plain = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-c", watch]
    run = subprocess.run(
        command, cwd=HOME, env=plain, stdout=subprocess.PIPE, text=True, check=True
    )
    assert run.stdout.split()[:1] == ["PASSIVE"]
