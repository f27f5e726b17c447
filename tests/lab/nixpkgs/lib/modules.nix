# Copyright: (c) 2026, Fediversity hosting contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# A module system with the semantics of the real one, as far as this collection needs it: imports, options with
# types, definitions with priorities and conditions, freeform submodules, and errors that name option and file.
{ lib }:
let
  inherit (builtins)
    concatMap
    elem
    filter
    foldl'
    head
    isAttrs
    isFunction
    isPath
    isString
    length
    map
    mapAttrs
    removeAttrs
    sort
    ;
  inherit (lib) attrNames concatMapStrings showOption;

  propertyOf = value: if isAttrs value then value._type or "" else "";
  isProperty = value: elem (propertyOf value) [ "if" "merge" "override" "order" ];
  isOption = value: propertyOf value == "option";

  priority = {
    optionDefault = 1500;
    default = 1000;
    none = 100;
    force = 50;
  };
  plainOrder = 1000;

  showDefinitions = concatMapStrings (
    definition: "\n- In `${definition.file}'${showValue definition.value}"
  );
  showValue =
    value:
    let
      text =
        if isProperty value then
          ""
        else if isString value || builtins.isInt value || builtins.isBool value || value == null then
          ": ${builtins.toJSON value}"
        else
          ": a ${builtins.typeOf value}";
    in
    if builtins.stringLength text > 120 then "${builtins.substring 0 120 text}…" else text;

  # --- modules -------------------------------------------------------------------------------------------------

  moduleKeys = [ "_file" "key" "imports" "options" "config" "freeformType" "meta" "disabledModules" "_class" ];

  # One form for a path, a function, a set or a bare property: { file, imports, options, config, freeformType }.
  normalise =
    args: file: module:
    if isPath module || isString module then
      normalise args (toString module) (import module)
    else if isFunction module then
      normalise args file (module args)
    else if isProperty module then
      normalise args file { config = module; }
    else if !isAttrs module then
      throw "Module `${file}' is a ${builtins.typeOf module}; a set, a function or a path was expected."
    else
      let
        explicit = module ? options || module ? config;
        foreign = attrNames (removeAttrs module moduleKeys);
      in
      if explicit && foreign != [ ] then
        throw "Module `${file}' has an unsupported attribute `${head foreign}': beside `config' or `options' it belongs into `config'."
      else
        {
          file = toString (module._file or file);
          imports = module.imports or [ ];
          options = module.options or { };
          config = if explicit then module.config or { } else removeAttrs module moduleKeys;
          freeformType = module.freeformType or null;
        };

  # All modules with their imports; a path imported twice counts once.
  collect =
    args: modules:
    let
      item =
        file: parentKey: index: module:
        {
          key = if isPath module || isString module then toString module else "${parentKey}:${toString index}";
          content = normalise args file module;
        };
      items = file: parentKey: lib.imap1 (item file parentKey);
    in
    map (entry: entry.content) (
      builtins.genericClosure {
        startSet = items "<unknown-file>" "modules" modules;
        operator = entry: items entry.content.file entry.key entry.content.imports;
      }
    );

  # --- definitions ---------------------------------------------------------------------------------------------

  # Conditions, merges and priorities around a set move onto its attributes, whose names are then known without
  # evaluating any condition. Input and output: { file, value }.
  pushDown =
    location: { file, value }:
    let
      wrapped = f: map (inner: { inherit file; value = mapAttrs (_: f) inner.value; }) (
        pushDown location { inherit file; value = value.content; }
      );
      kind = propertyOf value;
    in
    if kind == "merge" then
      concatMap (content: pushDown location { inherit file; value = content; }) value.contents
    else if kind == "if" then
      wrapped (mkIf value.condition)
    else if kind == "override" then
      wrapped (mkOverride value.priority)
    else if kind == "order" then
      wrapped (mkOrder value.order)
    else if isAttrs value && !isOption value then
      [ { inherit file value; } ]
    else
      throw "The option `${showOption location}' is a set of options, but a definition gives it a ${builtins.typeOf value}.${showDefinitions [ { inherit file value; } ]}";

  # Properties resolved: a list of { file, value, priority, order }; false conditions leave nothing.
  resolve =
    { file, value, priority ? 100, order ? plainOrder }@definition:
    let
      kind = propertyOf value;
      inner = extra: resolve ({ inherit file priority order; value = value.content; } // extra);
    in
    if kind == "merge" then
      concatMap (content: resolve ({ inherit file priority order; value = content; })) value.contents
    else if kind == "if" then
      (if value.condition then inner { } else [ ])
    else if kind == "override" then
      inner { inherit (value) priority; }
    else if kind == "order" then
      inner { inherit (value) order; }
    else
      [ { inherit file value priority order; } ];

  # The definitions of one value that count, merged by its type: { isDefined, value, definitions }.
  mergeDefinitions =
    location: type: definitions:
    let
      resolved = concatMap resolve definitions;
      strongest = foldl' (best: definition: lib.min best definition.priority) 9999 resolved;
      counting = sort (a: b: a.order < b.order) (
        filter (definition: definition.priority == strongest) resolved
      );
      wrong = filter (definition: !type.check definition.value) counting;
    in
    {
      isDefined = counting != [ ];
      definitions = counting;
      value =
        if counting == [ ] then
          throw "The option `${showOption location}' was accessed but has no value defined. Try setting the option."
        else if wrong != [ ] then
          throw "A definition for option `${showOption location}' is not of type `${type.description}'. Definition values:${showDefinitions wrong}"
        else
          type.merge location counting;
    };

  evaluateOption =
    location: declarations: definitions:
    let
      declaration = head declarations;
      option = declaration.value;
      type = option.type or lib.types.unspecified;
      default = if option ? default then [ { inherit (declaration) file; value = mkOptionDefault option.default; } ] else [ ];
      merged = mergeDefinitions location type (definitions ++ default);
    in
    if length declarations > 1 then
      throw "The option `${showOption location}' in `${declaration.file}' is already declared in `${(builtins.elemAt declarations 1).file}'."
    else
      option
      // {
        inherit type;
        loc = location;
        inherit (merged) isDefined definitions;
        value = if option ? apply then option.apply merged.value else merged.value;
        __toString = _: showOption location;
      };

  # Declarations and definitions walked together: { options, config, unmatched = [ { location, file, value } ] }.
  mergeTree =
    location: declarations: definitions:
    let
      pushed = concatMap (pushDown location) definitions;
      at = name: filter (entry: entry.value ? ${name});
      pick = name: entries: map (entry: { inherit (entry) file; value = entry.value.${name}; }) (at name entries);
      declared = foldl' (all: declaration: all // declaration.value) { } declarations;
      branch =
        name: _:
        let
          here = pick name declarations;
          location' = location ++ [ name ];
          leaves = filter (entry: isOption entry.value) here;
          evaluated = evaluateOption location' leaves (pick name pushed);
        in
        if leaves != [ ] && length leaves != length here then
          throw "The option `${showOption location'}' is declared as an option and as a set of options."
        else if leaves != [ ] then
          {
            options = evaluated;
            config = evaluated.value;
            unmatched = [ ];
          }
        else
          mergeTree location' here (pick name pushed);
      branches = mapAttrs branch declared;
      foreign = concatMap (
        entry:
        map (name: { location = location ++ [ name ]; inherit (entry) file; value = entry.value.${name}; }) (
          attrNames (removeAttrs entry.value (attrNames declared))
        )
      ) pushed;
    in
    {
      options = mapAttrs (_: result: result.options) branches;
      config = mapAttrs (_: result: result.config) branches;
      unmatched = foreign ++ concatMap (result: result.unmatched) (lib.attrValues branches);
    };

  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkMerge = contents: { _type = "merge"; inherit contents; };
  mkOverride = priority: content: { _type = "override"; inherit priority content; };
  mkOrder = order: content: { _type = "order"; inherit order content; };
  mkOptionDefault = mkOverride priority.optionDefault;
in
{
  inherit
    mkIf
    mkMerge
    mkOverride
    mkOrder
    mkOptionDefault
    mergeDefinitions
    showDefinitions
    isOption
    ;
  mkDefault = mkOverride priority.default;
  mkForce = mkOverride priority.force;
  mkBefore = mkOrder 500;
  mkAfter = mkOrder 1500;

  mkOption = attributes: attributes // { _type = "option"; };
  mkEnableOption = name: {
    _type = "option";
    type = lib.types.bool;
    default = false;
    description = "Whether to enable ${name}.";
  };
  literalExpression = text: { _type = "literalExpression"; inherit text; };
  setDefaultModuleLocation = file: module: { _file = file; imports = [ module ]; };

  # { config, options }; definitions of options that nobody declares are refused unless a freeform type takes them.
  evalModules =
    { modules, specialArgs ? { }, prefix ? [ ] }:
    let
      args = { inherit lib config options; } // specialArgs;
      all = collect args modules;
      tree = mergeTree prefix (map (module: { inherit (module) file; value = module.options; }) all) (
        map (module: { inherit (module) file; value = module.config; }) all
      );
      freeform = filter (module: module.freeformType != null) all;
      relative = location: lib.sublist (length prefix) (length location) location;
      free =
        (mergeDefinitions prefix (head freeform).freeformType (
          map (entry: { inherit (entry) file; value = lib.setAttrByPath (relative entry.location) entry.value; }) tree.unmatched
        )).value;
      first = head tree.unmatched;
      config =
        if tree.unmatched == [ ] then
          tree.config
        else if freeform != [ ] then
          lib.recursiveUpdate free tree.config
        else
          throw "The option `${showOption first.location}' does not exist. Definition values:${showDefinitions [ first ]}";
      inherit (tree) options;
    in
    {
      inherit config options;
    };
}
