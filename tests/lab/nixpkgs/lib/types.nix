# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# Option types: { description, check, merge }; `merge location definitions` gets checked { file, value } entries.
{ lib }:
let
  inherit (builtins)
    all
    any
    concatMap
    elem
    foldl'
    head
    isAttrs
    isBool
    isFloat
    isInt
    isList
    isString
    length
    map
    mapAttrs
    match
    removeAttrs
    ;
  inherit (lib) mergeDefinitions showDefinitions showOption;

  mkType = type: { _type = "option-type"; } // type;

  values = map (definition: definition.value);

  conflict =
    location: definitions:
    throw "The option `${showOption location}' has conflicting definition values:${showDefinitions definitions}\nUse `lib.mkForce value' or `lib.mkDefault value' to change the priority on any of these definitions.";

  mergeEqual =
    location: definitions:
    let
      first = (head definitions).value;
    in
    if all (value: value == first) (values definitions) then first else conflict location definitions;

  scalar = description: check: mkType {
    inherit description check;
    merge = mergeEqual;
  };

  isStringLike = value: isString value || builtins.isPath value || (isAttrs value && value ? outPath);
  isLine = value: isString value && match "[^\n]*\n?" value != null;

  between = low: high: scalar "integer between ${toString low} and ${toString high} (both inclusive)" (
    value: isInt value && value >= low && value <= high
  );

  separatedBy = separator: mkType {
    description = if separator == "\n" then "strings concatenated with \"\\n\"" else "strings concatenated with ${builtins.toJSON separator}";
    check = isString;
    merge = _: definitions: builtins.concatStringsSep separator (values definitions);
  };

  # What several loose definitions become: lists join, sets join, anything else must be equal.
  mergeLoose =
    location: definitions:
    if all isList (values definitions) then
      builtins.concatLists (values definitions)
    else if length definitions > 1 && all isAttrs (values definitions) then
      foldl' (joined: value: joined // value) { } (values definitions)
    else
      mergeEqual location definitions;

  mergeDeep =
    location: definitions:
    if all (value: isAttrs value && !lib.isDerivation value) (values definitions) then
      (attrsOf anything).merge location definitions
    else
      mergeEqual location definitions;

  anything = mkType {
    description = "anything";
    check = _: true;
    merge = mergeDeep;
  };

  attrsOf = element: mkType {
    description = "attribute set of ${element.description}";
    check = isAttrs;
    merge =
      location: definitions:
      let
        names = foldl' (joined: value: joined // value) { } (values definitions);
        merged = mapAttrs (
          name: _:
          mergeDefinitions (location ++ [ name ]) element (
            concatMap (
              { file, value, ... }: if value ? ${name} then [ { inherit file; value = value.${name}; } ] else [ ]
            ) definitions
          )
        ) names;
      in
      mapAttrs (_: result: result.value) (lib.filterAttrs (_: result: result.isDefined) merged);
  };

  submoduleWith = { modules, specialArgs ? { } }: mkType {
    description = "submodule";
    check = value: isAttrs value || builtins.isFunction value || builtins.isPath value;
    merge =
      location: definitions:
      (lib.evalModules {
        modules = modules ++ map ({ file, value, ... }: {
          _file = file;
          imports = [ (if isAttrs value then { config = value; } else value) ];
        }) definitions;
        specialArgs = { name = lib.last location; } // specialArgs;
        prefix = location;
      }).config;
  };
in
{
  inherit mkType anything attrsOf submoduleWith;
  lazyAttrsOf = attrsOf;
  submodule = module: submoduleWith { modules = lib.toList module; };

  bool = scalar "boolean" isBool;
  int = scalar "signed integer" isInt;
  float = scalar "floating point number" isFloat;
  number = scalar "signed integer or floating point number" (value: isInt value || isFloat value);
  str = scalar "string" isString;
  nonEmptyStr = scalar "non-empty string" (value: isString value && match "[[:space:]]*" value == null);
  singleLineStr = scalar "(optionally newline-terminated) single-line string" isLine;
  strMatching = pattern: scalar "string matching the pattern ${pattern}" (
    value: isString value && match pattern value != null
  );
  path = scalar "absolute path" (value: isStringLike value && builtins.substring 0 1 (toString value) == "/");
  package = scalar "package" (value: lib.isDerivation value || (isStringLike value && lib.hasPrefix "/" (toString value)));
  enum = choices: scalar "one of ${builtins.concatStringsSep ", " (map builtins.toJSON choices)}" (
    value: elem value choices
  );
  port = between 0 65535;
  ints = {
    inherit between;
    positive = scalar "positive integer, meaning >0" (value: isInt value && value > 0);
    unsigned = scalar "unsigned integer, meaning >=0" (value: isInt value && value >= 0);
  };
  lines = separatedBy "\n";
  commas = separatedBy ",";
  separatedString = separatedBy;

  attrs = mkType {
    description = "attribute set";
    check = isAttrs;
    merge = _: definitions: foldl' (joined: value: joined // value) { } (values definitions);
  };
  raw = scalar "raw value" (_: true);
  unspecified = mkType {
    description = "unspecified value";
    check = _: true;
    merge = mergeLoose;
  };

  listOf = element: mkType {
    description = "list of ${element.description}";
    check = isList;
    merge =
      location: definitions:
      map (result: result.value) (
        builtins.filter (result: result.isDefined) (
          builtins.concatLists (
            lib.imap1 (
              n: { file, value, ... }:
              lib.imap1 (
                m: entry:
                mergeDefinitions (location ++ [ "[definition ${toString n}-entry ${toString m}]" ]) element [
                  { inherit file; value = entry; }
                ]
              ) value
            ) definitions
          )
        )
      );
  };

  nullOr = element: mkType {
    description = "null or ${element.description}";
    check = value: value == null || element.check value;
    merge =
      location: definitions:
      if all (value: value == null) (values definitions) then
        null
      else if any (value: value == null) (values definitions) then
        conflict location definitions
      else
        element.merge location definitions;
  };

  oneOf =
    choices:
    mkType {
      description = builtins.concatStringsSep " or " (map (type: type.description) choices);
      check = value: any (type: type.check value) choices;
      merge =
        location: definitions:
        let
          fitting = builtins.filter (type: all type.check (values definitions)) choices;
        in
        if fitting == [ ] then conflict location definitions else (head fitting).merge location definitions;
    };
  either = one: other: lib.types.oneOf [ one other ];

  coercedTo = from: convert: to: mkType {
    inherit (to) description;
    check = value: to.check value || (from.check value && to.check (convert value));
    merge =
      location: definitions:
      to.merge location (
        map (
          definition:
          if from.check definition.value then definition // { value = convert definition.value; } else definition
        ) definitions
      );
  };
}
