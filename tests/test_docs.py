"""What a person can set, run or choose is written down, and what is written down exists."""

from __future__ import annotations

import argparse
import json
import re
import tomllib
from pathlib import Path

import pytest

from explorer import __main__ as command_line
from explorer import figures
from explorer.methods.registry import METHODS
from explorer.settings import VARIABLES, load_settings

HOME = Path(__file__).resolve().parent.parent
PAGES = [HOME / "README.md", *sorted((HOME / "docs").glob("*.md")), HOME / "CONTRIBUTING.md"]
README = (HOME / "README.md").read_text(encoding="utf-8")
CLI = (HOME / "docs" / "cli.md").read_text(encoding="utf-8")


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    for action in command_line.parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("the command line has no commands")


@pytest.mark.parametrize("variable", VARIABLES)
def test_setting_is_documented(variable: str) -> None:
    assert f"`{variable}`" in README


def test_no_setting_is_documented_that_does_not_exist() -> None:
    written = {
        name
        for page in PAGES
        for name in re.findall(r"\bEXPLORER_[A-Z_]+\b", page.read_text(encoding="utf-8"))
    }
    assert written == set(VARIABLES)


@pytest.mark.parametrize("command", commands())
def test_command_and_its_options_are_documented(command: str) -> None:
    section = re.search(rf"^## `{command}\b.*?(?=^## |\Z)", CLI, re.DOTALL | re.MULTILINE)
    assert section, f"docs/cli.md has no section '## `{command} ...`'"
    shared = CLI.split("\n## ", maxsplit=1)[0]
    options = {
        max(action.option_strings, key=len)
        for action in commands()[command]._actions
        if action.option_strings and action.help != argparse.SUPPRESS
    }
    for option in options - {"--help"}:
        assert f"`{option}" in section[0] + shared, f"{option} of {command} is not documented"


def test_no_command_is_documented_that_does_not_exist() -> None:
    assert set(re.findall(r"^## `([\w-]+)", CLI, re.MULTILINE)) == set(commands())
    for page in PAGES:
        for name in re.findall(r"-m explorer ([a-z]\w*)", page.read_text(encoding="utf-8")):
            assert name in commands(), f"{page.name} runs '{name}'"


def test_methods_are_documented() -> None:
    section = CLI.split("\n## `split", maxsplit=1)[1].split("\n## ", maxsplit=1)[0]
    assert not [name for name in METHODS if f"`{name}`" not in section]


@pytest.mark.parametrize("name", METHODS)
def test_method_cites_its_source(name: str) -> None:
    method = METHODS[name]
    assert method.title
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|doi:10\.|of this explorer", method.citation)


@pytest.mark.parametrize("name", figures.FIGURES)
def test_figure_type_is_documented_key_by_key(name: str) -> None:
    text = (HOME / "docs" / "figures.md").read_text(encoding="utf-8")
    section = re.search(rf"^## `{name}`.*?(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert section
    for key in figures.FIGURES[name].defaults:
        assert f"`{key}`" in section[0]
    recipes = re.findall(r"```json\n(.*?)```", section[0], re.DOTALL)
    assert recipes
    for recipe in recipes:
        assert figures.parse(recipe)["figure"] == json.loads(recipe)["figure"] == name


def test_example_of_a_configuration_is_read(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", README, re.DOTALL)
    assert example
    assert tomllib.loads(example[1])["workspace"]
    path = tmp_path / "explorer.toml"
    path.write_text(example[1], encoding="utf-8")
    names = [each.name for each in load_settings({"EXPLORER_CONFIG": str(path)}).workspaces]
    assert len(names) > 1


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not link.startswith(("https://", "mailto:")):
                assert (page.parent / link).exists(), f"{page.name} links to {link}"
