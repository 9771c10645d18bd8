"""A method with its parameters as one text, such as ``pure:attribution=lrp``, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from explorer.methods.method import Method
from explorer.methods.params import read_params
from explorer.methods.registry import method_named
from explorer.records import BadInput

LONGEST = 300


def parse(text: str) -> tuple[Method, dict[str, Any]]:
    """The method named by ``NAME`` or ``NAME:PARAMETER=VALUE,...``, and its given parameters,
    checked. Raises BadInput."""
    name, colon, rest = text[:LONGEST].partition(":")
    method = method_named(name)
    hints = get_type_hints(method.Params)
    given: dict[str, Any] = {}
    for part in rest.split(",") if colon else ():
        param, equals, value = (each.strip() for each in part.partition("="))
        if not equals or (param in hints and param in given):
            raise BadInput(
                f"'{text[:60]}' is no method: write {name}, or {name}:PARAMETER=VALUE,... with "
                "each parameter once."
            )
        given[param] = _converted(param, value, hints.get(param, str))
    checked = read_params(method.Params, given)
    return method, {param: getattr(checked, param) for param in given}


def text(name: str, params: Mapping[str, Any]) -> str:
    """The text of a method with parameters; those at their default are left out."""
    method = method_named(name)
    changed = [
        f"{each.name}={params[each.name]}"
        for each in fields(method.Params)
        if each.name in params and params[each.name] != each.default
    ]
    return f"{name}:{','.join(changed)}" if changed else name


def takes_k(method: Method) -> bool:
    """Whether the number of virtual neurons can be asked for; otherwise the method finds it."""
    return any(each.name == "k" for each in fields(method.Params))


def _converted(param: str, value: str, kind: type[Any]) -> Any:
    if kind is bool:
        words = {"true": True, "false": False}
        return words.get(value.lower(), value)
    try:
        return kind(value)
    except ValueError as error:
        raise BadInput(f"Parameter {param} is a {kind.__name__}, not '{value[:60]}'.") from error
