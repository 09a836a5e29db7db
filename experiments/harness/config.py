"""Configs on the command line: what ``--help`` says of them, and what their values may be."""

import inspect
import re
import runpy
import textwrap
from types import ModuleType
from typing import Any, TypeAlias

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from configs.base import ranges
from mamljax.checks import ArgumentError

Config: TypeAlias = Any
"""A `ConfigDict`, whose fields no type checker can know."""

_ASSIGNMENT = re.compile(r"    ((?:config\.[\w.]+ = )+).*?(?:  # (.*))?$")
_COMMENT = re.compile(r"    # (.*)$")


def check(config: ConfigDict) -> None:
    """Refuse numbers outside the range that the config file states.

    Raises:
      ArgumentError: with the flag, its value, and what it may be.
    """
    for name, value, wrong in ranges.problems(config):
        raise ArgumentError(f"--config.{name}={value!r}: {wrong}.")


def listing(config: str) -> str:
    """Return every value of a config, its default and what it means, and which variants there are.

    What a value means is its comment, beside or above it; variants stand at the top of the file.

    Args:
      config: a file, or a file and a variant with a colon between.

    Raises:
      ValueError: for a variant that there is not.
    """
    config_file, _, variant = config.partition(":")
    defined = runpy.run_path(config_file)
    shared = [
        inspect.getsource(value)
        for value in defined.values()
        if isinstance(value, ModuleType) and value.__name__.startswith("configs.")
    ]
    with open(config_file, encoding="utf-8") as file:
        meanings = comments("\n".join([*shared, file.read()]))
    said = inspect.cleandoc(defined["__doc__"]).split("\n\n")
    lines = [line for part in said if part.startswith("Variants") for line in part.splitlines()]
    which = f" of {variant}" if variant else ""
    lines += ["", f"Config values{which}, their defaults and what they mean:"]
    section = ""
    chosen = defined["get_config"](*filter(None, [variant]))
    values = sorted(
        flatten_dict(chosen.to_dict(), sep=".").items(), key=lambda leaf: "." in leaf[0]
    )
    for name, value in values:
        parent = name.rpartition(".")[0]
        if parent != section:
            section = parent
            lines += ["", *_indented(" ".join([f"{parent}:", *meanings.get(parent, [])]), 2)]
        lines.append(f"    --config.{name}={value}")
        for meaning in meanings.get(name, []):
            lines += _indented(meaning, 8)
    return "\n".join(lines)


def comments(source: str) -> dict[str, list[str]]:
    """Return the comments of what is assigned in the body of a function, by name.

    A base config may have one, and the file that changes its value another.
    """
    found: dict[str, list[str]] = {}
    above: list[str] = []
    for line in source.splitlines():
        if comment := _COMMENT.match(line):
            above.append(comment[1])
        elif assignment := _ASSIGNMENT.match(line):
            beside = [assignment[2]] if assignment[2] else []
            for name in re.findall(r"config\.([\w.]+) = ", assignment[1]):
                if said := " ".join([*above, *beside]):
                    found.setdefault(name, []).append(said)
            above = []
        else:
            above = []
    return found


def _indented(text: str, by: int) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent=" " * by, subsequent_indent=" " * by)
