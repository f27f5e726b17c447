# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stand-in's module system: the semantics of the real one that the collection's modules rely on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Evaluate = Callable[[str], Any]


def config(*modules: str) -> str:
    return f"(evalModules {{ modules = [ {' '.join(f'({module})' for module in modules)} ]; }}).config"


def option(kind: str, extra: str = "") -> str:
    return f"{{ options.a.b = mkOption {{ type = with types; {kind}; {extra} }}; }}"


@pytest.mark.parametrize(
    ("kind", "definitions", "expected"),
    [
        ("int", ["a.b = 1;"], 1),
        ("int", ["a.b = mkDefault 1;", "a.b = 2;"], 2),
        ("int", ["a.b = mkForce 3;", "a.b = 2;"], 3),
        ("int", ["a.b = mkIf false 1;", "a.b = 2;"], 2),
        ("int", ["a = mkIf true { b = mkMerge [ (mkIf false 1) (mkDefault 4) ]; };"], 4),
        ("int", ["a.b = 2;", "a.b = 2;"], 2),
        ("listOf str", ['a.b = [ "x" ];', 'a.b = mkBefore [ "y" ];', 'a.b = mkAfter [ "z" ];'], ["y", "x", "z"]),
        ("listOf int", ["a.b = [ 1 (mkIf false 2) (mkIf true 3) ];"], [1, 3]),
        (
            "attrsOf int",
            ["a.b.x = 1;", "a.b = { y = mkDefault 2; z = mkIf false 3; };", "a.b.y = 5;"],
            {"x": 1, "y": 5},
        ),
        ("lines", ['a.b = "x";', 'a.b = "y";'], "x\ny"),
        ("nullOr str", ["a.b = null;"], None),
        ("enum [ 1 2 ]", ["a.b = 2;"], 2),
        ("oneOf [ int str ]", ['a.b = "x";'], "x"),
        ("anything", ["a.b.x.y = 1;", "a.b.x.z = [ 2 ];"], {"x": {"y": 1, "z": [2]}}),
        ("attrs", ["a.b.x = 1;", "a.b.y = 2;"], {"x": 1, "y": 2}),
        ("coercedTo int toString str", ["a.b = 7;"], "7"),
        ("ints.positive", ["a.b = 1;"], 1),
    ],
)
def test_definitions_merge(lib_eval: Evaluate, kind: str, definitions: list[str], expected: Any) -> None:
    modules = [option(kind), *(f"{{ {definition} }}" for definition in definitions)]
    assert lib_eval(config(*modules)) == {"a": {"b": expected}}


@pytest.mark.parametrize(
    ("kind", "value", "described"),
    [
        ("int", '"1"', "signed integer"),
        ("str", "1", "string"),
        ("port", "99999", "integer between 0 and 65535"),
        ("path", '"relative"', "absolute path"),
        ("enum [ 1 2 ]", "3", "one of 1, 2"),
        ("listOf str", '[ "x" 2 ]', "string"),
        ("attrsOf int", '{ x = "y"; }', "signed integer"),
        ("nullOr int", '"x"', "null or signed integer"),
        ("package", "{ }", "package"),
        ("singleLineStr", '"a\\nb"', "single-line string"),
    ],
)
def test_a_wrong_type_is_refused_with_option_and_file(
    lib_eval: Evaluate, kind: str, value: str, described: str
) -> None:
    with pytest.raises(ValueError, match=r"A definition for option `a\.b[^']*' is not of type") as caught:
        lib_eval(config(option(kind), f'{{ _file = "wrong.nix"; a.b = {value}; }}'))
    assert described in str(caught.value)
    assert "In `wrong.nix'" in str(caught.value)


def test_equal_priorities_that_differ_are_a_conflict(lib_eval: Evaluate) -> None:
    with pytest.raises(ValueError, match=r"The option `a\.b' has conflicting definition values") as caught:
        lib_eval(config(option("int"), '{ _file = "one"; a.b = 1; }', '{ _file = "two"; a.b = 2; }'))
    assert "In `one': 1" in str(caught.value)
    assert "In `two': 2" in str(caught.value)


def test_an_option_that_nobody_declares_is_refused(lib_eval: Evaluate) -> None:
    with pytest.raises(ValueError, match=r"The option `a\.typo' does not exist") as caught:
        lib_eval(config(option("int", "default = 1;"), '{ _file = "wrong.nix"; a.typo = 1; }'))
    assert "In `wrong.nix'" in str(caught.value)


def test_a_value_that_nobody_defines_is_refused_only_where_it_is_used(lib_eval: Evaluate) -> None:
    assert lib_eval(f"let c = {config(option('int'), '{ options.c = mkOption { default = 1; }; }')}; in c.c") == 1
    with pytest.raises(ValueError, match=r"The option `a\.b' was accessed but has no value defined"):
        lib_eval(config(option("int")))


def test_conditions_may_depend_on_the_configuration(lib_eval: Evaluate) -> None:
    modules = [
        '{ options.on = mkEnableOption "it"; options.x = mkOption { type = types.int; default = 0; }; }',
        "{ config, ... }: { config = mkIf config.on { x = 1; }; }",
        "{ on = true; }",
    ]
    assert lib_eval(config(*modules)) == {"on": True, "x": 1}


def test_submodules_know_their_name_and_take_free_attributes(lib_eval: Evaluate) -> None:
    declaration = """{ options.s = mkOption { type = types.attrsOf (types.submodule ({ name, ... }: {
        freeformType = types.attrsOf types.int;
        options.label = mkOption { type = types.str; default = name; };
    })); }; }"""
    assert lib_eval(config(declaration, "{ s.one.free = 1; }", '{ s.two.label = "x"; }')) == {
        "s": {"one": {"free": 1, "label": "one"}, "two": {"label": "x"}}
    }
    with pytest.raises(ValueError, match=r"`s\.one\.free' is not of type `signed integer'"):
        lib_eval(config(declaration, '{ s.one.free = "x"; }'))


def test_imports_count_once_and_keep_the_file_of_their_parent(lib_eval: Evaluate, tmp_path: Any) -> None:
    module = tmp_path / "list.nix"
    module.write_text("{ lib, ... }: { options.l = lib.mkOption { default = [ ]; }; config.l = [ 1 ]; }", "utf-8")
    assert lib_eval(config(f"{{ imports = [ {module} {module} ]; }}", f"{{ imports = [ {module} ]; }}")) == {"l": [1]}
    with pytest.raises(ValueError, match="In `parent'"):
        lib_eval(config('{ _file = "parent"; imports = [ ({ ... }: { typo = 1; }) ]; }'))


def test_an_option_declared_twice_is_refused(lib_eval: Evaluate) -> None:
    with pytest.raises(ValueError, match=r"The option `a\.b' in .* is already declared"):
        lib_eval(config(option("int", "default = 1;"), option("int")))


def test_stray_attributes_beside_config_are_refused(lib_eval: Evaluate) -> None:
    with pytest.raises(ValueError, match="unsupported attribute `a'"):
        lib_eval(config(option("int"), "{ config = { }; a.b = 1; }"))
