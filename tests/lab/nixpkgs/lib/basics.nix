# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# Attribute sets, lists, strings: plain functions over builtins.
rec {
  inherit (builtins)
    all
    any
    attrNames
    attrValues
    concatLists
    concatMap
    concatStringsSep
    elem
    elemAt
    filter
    foldl'
    functionArgs
    hasAttr
    head
    intersectAttrs
    isAttrs
    isBool
    isFloat
    isFunction
    isInt
    isList
    isString
    length
    listToAttrs
    mapAttrs
    removeAttrs
    replaceStrings
    sort
    splitVersion
    stringLength
    substring
    tail
    toJSON
    ;

  id = x: x;
  const = x: _: x;
  flip = f: a: b: f b a;
  min = a: b: if a < b then a else b;
  max = a: b: if a > b then a else b;

  range = first: last: if first > last then [ ] else builtins.genList (n: first + n) (last - first + 1);
  imap1 = f: list: builtins.genList (n: f (n + 1) (elemAt list n)) (length list);
  optional = condition: value: if condition then [ value ] else [ ];
  optionals = condition: values: if condition then values else [ ];
  last = list: elemAt list (length list - 1);
  flatten = value: if isList value then concatMap flatten value else [ value ];
  sublist =
    start: count: list:
    builtins.genList (n: elemAt list (start + n)) (max 0 (min count (length list - start)));
  unique = foldl' (seen: value: if elem value seen then seen else seen ++ [ value ]) [ ];
  count = predicate: list: length (filter predicate list);
  toList = value: if isList value then value else [ value ];

  optionalAttrs = condition: set: if condition then set else { };
  nameValuePair = name: value: { inherit name value; };
  mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
  mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
  filterAttrs =
    predicate: set: removeAttrs set (filter (name: !predicate name set.${name}) (attrNames set));
  genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
  attrByPath =
    path: default: set:
    if path == [ ] then
      set
    else if isAttrs set && set ? ${head path} then
      attrByPath (tail path) default set.${head path}
    else
      default;
  setAttrByPath =
    path: value: if path == [ ] then value else { ${head path} = setAttrByPath (tail path) value; };
  recursiveUpdate =
    left: right:
    left
    // mapAttrs (
      name: value:
      if isAttrs value && isAttrs (left.${name} or null) then recursiveUpdate left.${name} value else value
    ) right;
  isDerivation = value: isAttrs value && (value.type or null) == "derivation";

  optionalString = condition: text: if condition then text else "";
  concatMapStringsSep = separator: f: list: concatStringsSep separator (map f list);
  concatMapStrings = concatMapStringsSep "";
  concatStrings = concatStringsSep "";
  concatLines = concatMapStrings (line: line + "\n");
  hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
  hasSuffix =
    suffix: text:
    let
      start = stringLength text - stringLength suffix;
    in
    start >= 0 && substring start (stringLength suffix) text == suffix;
  hasInfix = infix: text: length (builtins.split (escapeRegex infix) text) > 1;
  removePrefix =
    prefix: text:
    if hasPrefix prefix text then substring (stringLength prefix) (-1) text else text;
  removeSuffix =
    suffix: text:
    if hasSuffix suffix text then substring 0 (stringLength text - stringLength suffix) text else text;
  splitString = separator: text: filter isString (builtins.split (escapeRegex separator) text);
  escape = characters: replaceStrings characters (map (character: "\\" + character) characters);
  escapeRegex = escape [ "\\" "^" "$" "." "|" "?" "*" "+" "(" ")" "[" "]" "{" "}" ];
  escapeShellArg = value: "'${replaceStrings [ "'" ] [ "'\\''" ] (toString value)}'";
  escapeShellArgs = concatMapStringsSep " " escapeShellArg;
  boolToString = value: if value then "true" else "false";
  showOption = concatMapStringsSep "." (
    part: if builtins.match "[A-Za-z_][A-Za-z0-9_'-]*|<[^>]*>|\\*" part != null then part else toJSON part
  );

  throwIf = condition: message: if condition then throw message else id;
  throwIfNot = condition: throwIf (!condition);
  warn = message: builtins.trace "warning: ${message}";

  generators.toKeyValue =
    { }:
    set:
    concatLines (
      mapAttrsToList (name: value: "${name}=${if isBool value then boolToString value else toString value}") set
    );
}
