# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parameters of every call: read from tables/*.toml, checked as PVE/JSONSchema.pm does, with its texts."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .errors import invalid
from .formats import CHECKS

TYPES = {"bool": "boolean", "int": "integer", "num": "number", "str": "string", "array": "array"}
DISKS = (
    *(f"ide{n}" for n in range(4)),
    *(f"scsi{n}" for n in range(31)),
    *(f"virtio{n}" for n in range(16)),
    *(f"sata{n}" for n in range(6)),
    "efidisk0",
    "tpmstate0",
)
LISTS = {"@disks": DISKS, "@disks+unused": (*DISKS, *(f"unused{n}" for n in range(256)))}
UNKNOWN = "property is not defined in schema and the schema does not allow additional properties"
MISSING = "property is missing and it is not optional"


@dataclass(frozen=True)
class Spec:
    """One parameter, or one key of a property string."""

    type: str
    optional: bool = False
    minimum: float | None = None
    maximum: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    format: str = ""
    property_string: str = ""
    enum: tuple[str, ...] = ()
    needs: str = ""
    default_key: bool = False
    pattern: str = ""
    alias: str = ""
    sets: str = ""


@dataclass(frozen=True)
class Endpoint:
    """One call: `check` is its permission as (ACL path, privileges of which one is enough)."""

    method: str
    path: str
    parameters: Mapping[str, Spec]
    open: bool
    check: tuple[str, tuple[str, ...]] | None


def _number(text: str) -> float | None:
    return float(text) if text else None


def parse_spec(text: str) -> Spec:
    """One line of the notation that tables/vm.toml describes."""
    text, _unused, pattern = text.partition("~")
    first, *words = text.split()
    if first == "alias":
        return Spec("string", optional=True, alias=words[0], sets=words[1].removeprefix("sets=") if words[1:] else "")
    found: dict[str, Any] = {"type": TYPES[first.lstrip("?")], "optional": first.startswith("?"), "pattern": pattern}
    for word in words:
        name, _unused, value = word.partition("=")
        if ".." in name:
            low, high = name.split("..")
            found |= {"minimum": _number(low), "maximum": _number(high)}
        elif name == "len":
            low, high = value.split("..")
            found |= {"min_length": int(low or 0) or None, "max_length": int(high)}
        elif name == "is":
            found["format"] = value
        elif name == "of":
            found["property_string"] = value
        elif name == "in":
            found["enum"] = LISTS.get(value) or tuple(value.split(","))
        elif name == "needs":
            found["needs"] = value
        elif name == "default":
            found["default_key"] = True
        else:
            raise ValueError(f"schema: {word!r} in {text!r}")
    return Spec(**found)


def _expand(table: Mapping[str, Any]) -> Iterator[tuple[str, Spec]]:
    for key, text in table.items():
        if key.startswith("_"):
            continue
        if family := re.fullmatch(r"(.+)\[(\d+)\.\.(\d+)\]", key):
            for number in range(int(family[2]), int(family[3]) + 1):
                yield f"{family[1]}{number}", parse_spec(text)
        else:
            yield key, parse_spec(text)


@dataclass(frozen=True)
class Schema:
    """Everything the tables say."""

    endpoints: Mapping[tuple[str, str], Endpoint]
    options: Mapping[str, Spec]  # the options of a virtual machine
    formats: Mapping[str, Mapping[str, Spec]]  # property strings


@cache
def schema() -> Schema:
    """The tables beside this file."""
    tables: dict[str, Any] = {}
    for file in sorted(Path(__file__).with_name("tables").glob("*.toml")):
        tables |= tomllib.loads(file.read_text(encoding="utf-8"))
    options = dict(_expand(tables["groups"]["vm"]))
    base = tables["formats"]["drive"]
    formats = {
        name: dict(_expand((base if table.get("_include") else {}) | table))
        for name, table in tables["formats"].items()
    }
    in_path = dict(_expand(tables["path"]))
    endpoints = {}
    for title, table in tables.items():
        if " /" not in title:
            continue
        method, path = title.split(" ", 1)
        parameters = {name: in_path[name] for name in re.findall(r"{(\w+)}", path)}
        parameters |= options if table.get("_include") else {}
        parameters |= dict(_expand(table))
        check = None
        if text := table.get("_check"):
            where, privileges = text.split(" ", 1)
            check = (where, tuple(privileges.split("|")))
        endpoints[method, path] = Endpoint(method, path, parameters, bool(table.get("_open")), check)
    return Schema(endpoints, options, formats)


def _boolean(text: str, in_string: bool) -> int | None:
    """Strictly 0 and 1; a property string takes words too (`parse_boolean`)."""
    words = {"on": 1, "yes": 1, "true": 1, "off": 0, "no": 0, "false": 0} if in_string else {}
    return ({"0": 0, "1": 1} | words).get(text.lower())


def _typed(spec: Spec, value: object, in_string: bool) -> object | None:
    """The value as int, float, str or list; None when it has another type."""
    if spec.type == "array":
        return value if isinstance(value, list) else [value]
    if isinstance(value, list | dict):
        return None
    text = str(int(value)) if isinstance(value, bool) else str(value)
    if spec.type == "boolean":
        return _boolean(text, in_string)
    pattern, make = _NUMBERS.get(spec.type, (r"(?s:.*)", str))
    return make(text) if re.fullmatch(pattern, text) else None


_NUMBERS: dict[str, tuple[str, Callable[[str], object]]] = {
    "integer": (r"[+-]?\d+", int),
    "number": (r"[+-]?\d+(\.\d+)?", float),
}


def _shown(value: object) -> str:
    return "ARRAY" if isinstance(value, list) else "HASH" if isinstance(value, dict) else f"'{value}'"


def _problems(spec: Spec, value: object, name: str) -> Iterator[str]:
    """What is wrong with a value of the right type; the server tells the first."""
    if spec.property_string and (problem := parse_property_string(spec.property_string, str(value), name)[1]):
        yield f"invalid format - {problem}\n"
    if spec.format and (text := CHECKS[spec.format](str(value))):
        yield f"invalid format - {text}"
    if isinstance(value, str):
        if spec.max_length is not None and len(value) > spec.max_length:
            yield f"value may only be {spec.max_length} characters long"
        if spec.min_length is not None and len(value) < spec.min_length:
            yield f"value must be at least {spec.min_length} characters long"
        if spec.pattern and not re.fullmatch(spec.pattern, value):
            yield "value does not match the regex pattern"
    elif isinstance(value, int | float):
        if spec.minimum is not None and value < spec.minimum:
            yield f"value must have a minimum value of {spec.minimum:g}"
        if spec.maximum is not None and value > spec.maximum:
            yield f"value must have a maximum value of {spec.maximum:g}"
    if spec.enum and value not in spec.enum:
        yield f"value '{value}' does not have a value in the enumeration '{', '.join(spec.enum)}'"


def check_values(
    specs: Mapping[str, Spec], given: Mapping[str, object], prefix: str = ""
) -> tuple[dict[str, Any], dict[str, str]]:
    """(typed values, errors by name); `prefix` is the parameter's name when `given` are keys of a property string."""
    label = (prefix + ".{}").format if prefix else str
    values: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name, raw in given.items():
        spec = specs.get(name)
        if spec is None or spec.alias:
            errors[label(name)] = UNKNOWN
            continue
        value = _typed(spec, raw, bool(prefix))
        if value is None:
            errors[label(name)] = f"type check ('{spec.type}') failed - got {_shown(raw)}"
        elif problem := next(_problems(spec, value, name), ""):
            errors[label(name)] = problem
        else:
            values[name] = value
        if spec.needs and spec.needs not in given:
            errors[label(spec.needs)] = f"missing property required by '{label(name)}'"
    for name, spec in specs.items():
        if not spec.optional and name not in given:
            errors[label(name)] = MISSING
    return values, errors


def parse_property_string(kind: str, text: str, name: str = "value") -> tuple[dict[str, Any], str]:
    """(typed values, "" or what is wrong) of a comma list of key=value (JSONSchema.pm `parse_property_string`)."""
    specs = schema().formats[kind]
    default = next((key for key, spec in specs.items() if spec.default_key), "")
    raw: dict[str, object] = {}

    def put(key: str, value: str) -> str:
        if key in raw:
            return f"duplicate key in comma-separated list property: {key}"
        raw[key] = value
        return ""

    problem = ""
    for part in text.split(","):
        if not part.strip():
            continue
        key, equals, value = part.partition("=")
        if not equals:
            if not default:
                return {}, "value without key, but schema does not define a default key"
            problem = put(default, key)
        else:
            spec = specs.get(key)
            problem = put(spec.sets, key) if spec and spec.sets else ""
            problem = problem or put(spec.alias if spec and spec.alias else key, value)
        if problem:
            return {}, problem
    values, errors = check_values(specs, raw, name)
    if errors:
        return {}, "format error\n" + "\n".join(f"{where}: {what}" for where, what in errors.items())
    return values, ""


def check_parameters(endpoint: Endpoint, given: Mapping[str, object]) -> dict[str, Any]:
    """The typed parameters of a call; 400 with one text per wrong parameter."""
    values, errors = check_values(endpoint.parameters, given)
    if errors:
        raise invalid(errors)
    return values
