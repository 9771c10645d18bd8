"""Checks of a recipe's values, one sentence each. Each takes the recipe and one of its keys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from explorer.browse import check_query
from explorer.records import BadInput, ReferenceQuery


def quoted(value: Any) -> str:
    """A value as a person wrote it, cut short."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_text(recipe: Mapping[str, Any], key: str) -> None:
    if not isinstance(recipe[key], str):
        raise BadInput(f"The recipe's '{key}' is a text, not {quoted(recipe[key])}.")


def check_object(recipe: Mapping[str, Any], key: str) -> None:
    if not isinstance(recipe[key], Mapping):
        raise BadInput(f"The recipe's '{key}' is an object, not {quoted(recipe[key])}.")


def check_list(recipe: Mapping[str, Any], key: str, *kinds: type) -> None:
    value = recipe[key]
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise BadInput(f"The recipe's '{key}' is a list, not {quoted(value)}.")
    for each in value:
        if type(each) not in kinds:
            raise BadInput(f"The recipe's '{key}' cannot hold {quoted(each)}.")


def check_whole(recipe: Mapping[str, Any], key: str, low: int, high: int) -> None:
    value = recipe[key]
    if type(value) is not int or not low <= value <= high:
        raise BadInput(
            f"The recipe's '{key}' is a whole number from {low} to {high}, not {quoted(value)}."
        )


def check_choice(recipe: Mapping[str, Any], key: str, choices: Sequence[str]) -> None:
    if recipe[key] not in choices:
        listed = ", ".join(choices)
        raise BadInput(f"The recipe's '{key}' is one of {listed}, not {quoted(recipe[key])}.")


def read_references(recipe: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The fields of a ReferenceQuery, complete; BadInput names the first that is wrong."""
    check_object(recipe, key)
    known = asdict(ReferenceQuery())
    for name, value in recipe[key].items():
        if name not in known:
            raise BadInput(f"The recipe's '{key}' has no {quoted(name)}: use {', '.join(known)}.")
        if type(value) is not type(known[name]):
            raise BadInput(f"The recipe's '{name}' of '{key}' cannot be {quoted(value)}.")
    query = ReferenceQuery(**recipe[key])
    check_query(query)
    return asdict(query)
