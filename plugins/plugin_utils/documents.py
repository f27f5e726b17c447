# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checking documents against a JSON Schema, and YAML that remembers its lines."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

try:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend
except ImportError:
    pass  # libraries.require() reports it before any use

# longer values in messages are cut: they may be a customer's whole text
SHOWN = 80

# our own annotation in schemas: what a text that matches the pattern is, with its article
MEANING = "x-meaning"

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """Something wrong at one place of a document; the message ends with what to do where that is not obvious."""

    path: Path
    message: str

    @property
    def where(self) -> str:
        """The path as ``operators[1].deployments[0].name``."""
        return dotted(self.path)


@dataclass(frozen=True)
class Document:
    """Plain data (dict, list, str, int, float, bool, None) and the line on which every value begins."""

    data: Any
    lines: Mapping[Path, int]

    def line(self, path: Path) -> int:
        """The line of the value, or of the nearest thing around it that is in the document."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)


class MalformedDocument(Exception):
    """The text is no such document; problems are (line, message)."""

    def __init__(self, problems: list[tuple[int, str]]) -> None:
        super().__init__("; ".join(f"line {line}: {message}" for line, message in problems))
        self.problems = problems


def dotted(path: Path) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "document"


def shown(value: Any) -> str:
    """The value for a message: one line, not too long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def schema_problems(schema: Mapping[str, Any], value: Any, at: Path = ()) -> list[Problem]:
    """Everything in *value* that the JSON Schema (draft 2020-12) refuses, in the order of the document."""
    errors = sorted(_validator_class()(schema).iter_errors(value), key=lambda error: [str(part) for part in error.path])
    return [problem for error in errors for problem in _problems(error, at)]


def _problems(error: ValidationError, at: Path) -> Iterator[Problem]:
    raw: Any = error  # its attributes may be unset by type; those of a validator's errors never are
    path = (*at, *error.absolute_path)
    keyword, rule, value, schema = raw.validator, raw.validator_value, raw.instance, raw.schema
    if keyword == "additionalProperties":
        known = sorted(schema.get("properties", {}))
        for name in value:
            if name not in known:
                yield Problem((*path, name), f"unknown field; known here: {', '.join(known)}")
    elif keyword == "required":
        yield Problem(path, error.message.replace("is a required property", "is missing"))
    elif keyword == "enum":
        yield Problem(path, f"{shown(value)} is not one of: {', '.join(map(str, rule))}")
    elif keyword == "type":
        yield Problem(path, f"{shown(value)} is not of type {rule if isinstance(rule, str) else ' or '.join(rule)}")
    elif keyword in ("pattern", "maxLength", "minLength") and MEANING in schema:
        yield Problem(path, f"{shown(value)} is not {schema[MEANING]}")
    elif keyword == "pattern" and "description" in schema:
        yield Problem(path, f"{shown(value)} does not match {rule} ({schema['description']})")
    elif keyword == "maxLength":
        yield Problem(path, f"is longer than {rule} characters ({len(value)})")
    else:
        short = len(error.message) <= 3 * SHOWN
        yield Problem(path, error.message if short else f"{shown(value)} violates the rule {keyword}")


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    """As ECMA-262 (JSON Schema validation 6.3.3): unlike Python's, its $ does not match before a final line end."""
    if isinstance(instance, str) and not re.search(re.sub(r"(?<!\\)\$\Z", r"\\Z", pattern), instance):
        yield ValidationError(f"{shown(instance)} does not match {pattern!r}")


@cache
def _validator_class() -> Any:
    # for JSON Schema 5.0 is an integer too; for Nix it is not
    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer)
    return extend(Draft202012Validator, {"pattern": _pattern}, type_checker=types)  # type: ignore[no-untyped-call]


def _is_integer(_checker: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class _Loader(yaml.SafeLoader):
    """Safe YAML without dates: a version such as 2026-01-01 stays text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

_SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}

UNFIT = "a control character, or one that is no character; remove it"
# Control characters other than tab and line ends command a terminal and are not allowed in XML (feeds); halves of pairs
# are no UTF-8; systemd refuses an environment file with a noncharacter (Unicode 23.7), which fails the whole machine.
_NONCHARACTERS = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_UNFIT = re.compile(f"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_NONCHARACTERS}]")


def load_yaml(text: str) -> Document:
    """Read one YAML document that consists of plain data only.

    :raises MalformedDocument: a syntax error, a field given twice, a tag, alias loop or text that cannot be stored.
    """
    try:
        return _load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise MalformedDocument([(line, f"no YAML: {error.problem or error.context}")]) from error
    except (yaml.YAMLError, ValueError, KeyError) as error:
        raise MalformedDocument([(1, f"no YAML: {' '.join(str(error).split())}")]) from error
    except RecursionError:
        raise MalformedDocument([(1, "the document is nested too deeply")]) from None


def _load(text: str) -> Document:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise MalformedDocument([(1, "the document is empty")])
        lines: dict[Path, int] = {}
        problems = list(_walk(node, (), lines, frozenset()))
        if problems:
            raise MalformedDocument(sorted(problems))
        data = loader.construct_document(node)
    finally:
        loader.dispose()
    return Document(data, lines)


def _walk(node: yaml.Node, path: Path, lines: dict[Path, int], above: frozenset[int]) -> Iterator[tuple[int, str]]:
    """Record the line of every value below *node* and yield what is not plain data."""
    line = node.start_mark.line + 1
    lines[path] = line
    if id(node) in above:
        yield line, f"{dotted(path)}: the alias contains itself"
    elif isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        seen: dict[str, int] = {}
        for key, value in node.value:
            key_line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                yield key_line, f"{dotted(path)}: a field name must be plain text (quote it)"
                continue
            key.value = _joined(key.value)
            if _UNFIT.search(key.value):
                yield key_line, f"{dotted(path)}: the field name {key.value!r} has {UNFIT}"
                continue
            if key.value in seen:
                yield key_line, f"{dotted((*path, key.value))}: given twice (line {seen[key.value]})"
            seen[key.value] = key_line
            yield from _walk(value, (*path, key.value), lines, above | {id(node)})
            if isinstance(value, yaml.CollectionNode):
                lines[(*path, key.value)] = key_line
    elif isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        for number, item in enumerate(node.value):
            yield from _walk(item, (*path, number), lines, above | {id(node)})
    elif node.tag not in _SCALARS:
        yield line, f"{dotted(path)}: the tag {node.tag} is not supported"
    elif isinstance(node, yaml.ScalarNode):
        yield from _check_scalar(node, path, line)


def _check_scalar(node: yaml.ScalarNode, path: Path, line: int) -> Iterator[tuple[int, str]]:
    value = node.value = _joined(node.value)
    if node.tag.endswith(":float") and not math.isfinite(_Loader("").construct_yaml_float(node)):
        yield line, f"{dotted(path)}: {shown(value)} is no number that can be stored"
    elif _UNFIT.search(value):
        yield line, f"{dotted(path)}: the text has {UNFIT}"


def _joined(text: str) -> str:
    """JSON is YAML, but writes a character beyond U+FFFF as two escapes, which YAML alone leaves as two halves."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
