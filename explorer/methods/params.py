"""Parameters of a method: one frozen dataclass from which form, CLI, key and checks follow."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any, get_args, get_type_hints

from explorer.records import BadInput


def option(
    default: Any,
    label: str,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    step: float | None = None,
    choices: tuple[Any, ...] = (),
) -> Any:
    """A field of a ``Params`` dataclass, with what a form or a command line needs to offer it."""
    return field(
        default=default,
        metadata={
            "label": label,
            "help": help,
            "min": minimum,
            "max": maximum,
            "step": step,
            "choices": choices,
        },
    )


def read_params(kind: type[Any], given: Mapping[str, Any]) -> Any:
    """An instance of the ``Params`` class ``kind``; BadInput names the first thing wrong."""
    known = {each.name: each for each in fields(kind)}
    for name in given:
        if name not in known:
            raise BadInput(f"There is no parameter '{name}': use {', '.join(known)}.")
    hints = get_type_hints(kind)
    values = {
        name: _checked(name, value, hints[name], known[name].metadata)
        for name, value in given.items()
    }
    return kind(**values)


def _checked(name: str, value: Any, hint: Any, rule: Mapping[str, Any]) -> Any:
    wanted = get_args(hint)[0] if isinstance(hint, types.UnionType) else hint
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise BadInput(f"Parameter {name} is a {wanted.__name__}, not '{value}'.")
    if rule["choices"] and value not in rule["choices"]:
        listed = ", ".join(map(str, rule["choices"]))
        raise BadInput(f"Parameter {name} is one of {listed}, not '{value}'.")
    low, high = rule["min"], rule["max"]
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        raise BadInput(f"Parameter {name} lies between {low} and {high}, not at {value}.")
    return value
