"""Writes a table as JSON or as constants in a language's source. docs/languages.md describes the results.

Each writer stands alone: the files it makes need nothing but the language's own standard library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence

from lahja_capn.cli.table import Table, identifiers

# Of the JSON form: raised when something that is there changes its meaning, not when something is added.
FORMAT = 1


def _header(table: Table) -> str:
    return f"Generated from {table.source} by: {table.command}"


def emit_json(table: Table, _: str) -> str:
    rows = []
    for entry in table.entries:
        row = {
            "wire_id": entry.wire_id,
            "type_id": f"0x{entry.type_id:016x}",
            "kind": entry.kind,
            "name": entry.name,
            "layout": list(entry.layout),
            "reaches": [f"0x{type_id:016x}" for type_id in entry.reaches],
            "struct": entry.struct,
            "fields": [
                {"ordinal": ordinal, "name": name, "text": text, "hash": f"0x{number:08x}"}
                for ordinal, (name, text, number) in enumerate(
                    zip(entry.fields, entry.texts, entry.layout, strict=True)
                )
            ],
        }
        lines = [f"      {json.dumps(key)}: {_json_value(value)}" for key, value in row.items()]
        rows.append("    {\n" + ",\n".join(lines) + "\n    }")
    listed = "[\n" + ",\n".join(rows) + "\n  ]" if rows else "[]"
    return (
        f'{{ "generated": {json.dumps(_header(table))},\n'
        f'  "format": {FORMAT},\n'
        f'  "source": {json.dumps(table.source)},\n'
        f'  "rows": {listed}\n}}\n'
    )


def _json_value(value: object) -> str:
    # A list of objects one a line, anything else on one line: what people compare stays readable.
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(f"        {json.dumps(item)}" for item in value) + "\n      ]"
    return json.dumps(value)


def emit_cpp(table: Table, namespace: str) -> str:
    out = [
        f"// {_comment(_header(table))}",
        "// Do not edit.",
        "#pragma once",
        "",
        "#include <cstddef>",
        "#include <cstdint>",
        "#include <string_view>",
        "",
        f"namespace {namespace} {{",
        "",
        "// As in TypeRow of wire.capnp.",
        "enum class Kind : std::uint16_t { structure = 0, opaque = 1 };",
        "",
        "struct TableRow {",
        "  std::uint16_t wireId;  // a suggestion; 0: only reachable from event types",
        "  std::uint64_t typeId;",
        "  Kind kind;",
        "  std::string_view name;",
        "  const std::uint32_t* layout;",
        "  std::size_t layoutSize;",
        "  const std::uint64_t* reaches;  // type ids of rows that go before this one, or with it",
        "  std::size_t reachesSize;",
        "};",
    ]
    names = [_camel(words) + "Row" for words in identifiers(table.entries)]
    for name, entry in zip(names, table.entries, strict=True):
        out.append("")
        parts = [f"{entry.wire_id}, {_hex64(entry.type_id)}ULL", f"Kind::{_CPP_KINDS[entry.kind]}"]
        parts.append(_cpp_text(entry.name))
        for field, kind, values in (
            ("Layout", "std::uint32_t", [f"0x{number:08x}U" for number in entry.layout]),
            ("Reaches", "std::uint64_t", [f"{_hex64(number)}ULL" for number in entry.reaches]),
        ):
            # C++ has no empty arrays.
            if values:
                out.append(f"inline constexpr {kind} {name}{field}[] = {{")
                out += _wrapped(values, "    ")
                out.append("};")
                parts.append(f"{name}{field}, {len(values)}")
            else:
                parts.append("nullptr, 0")
        out.append(f"inline constexpr TableRow {name}{{{', '.join(parts[:2])}, {parts[2]},")
        out.append(f"    {', '.join(parts[3:])}}};")
    out += ["", "// In an order in which they may be declared."]
    if names:
        out.append("inline constexpr TableRow rows[] = {")
        out += [f"    {name}," for name in names]
        out.append("};")
    else:
        out.append("inline constexpr const TableRow* rows = nullptr;")
    out += [f"inline constexpr std::size_t rowCount = {len(names)};", "", f"}}  // namespace {namespace}"]
    return "\n".join(out) + "\n"


_CPP_KINDS = {"struct": "structure", "opaque": "opaque"}


def emit_rust(table: Table, _: str) -> str:
    out = [
        f"// {_comment(_header(table))}",
        "// Do not edit.",
        "",
        "/// As in TypeRow of wire.capnp.",
        "#[derive(Clone, Copy, Debug, PartialEq, Eq)]",
        "pub enum Kind {",
        "    Struct = 0,",
        "    Opaque = 1,",
        "}",
        "",
        "#[derive(Clone, Copy, Debug, PartialEq, Eq)]",
        "pub struct TableRow {",
        "    /// A suggestion; 0: only reachable from event types.",
        "    pub wire_id: u16,",
        "    pub type_id: u64,",
        "    pub kind: Kind,",
        "    pub name: &'static str,",
        "    pub layout: &'static [u32],",
        "    /// Type ids of rows that go before this one, or with it.",
        "    pub reaches: &'static [u64],",
        "}",
    ]
    names = ["_".join(words).upper() + "_ROW" for words in identifiers(table.entries)]
    for name, entry in zip(names, table.entries, strict=True):
        out += ["", f"pub const {name}: TableRow = TableRow {{"]
        out.append(f"    wire_id: {entry.wire_id},")
        out.append(f"    type_id: {_hex64(entry.type_id)},")
        out.append(f"    kind: Kind::{entry.kind.capitalize()},")
        out.append(f"    name: {_rust_text(entry.name)},")
        for field, values in (
            ("layout", [f"0x{number:08x}" for number in entry.layout]),
            ("reaches", [_hex64(number) for number in entry.reaches]),
        ):
            out += _rust_slice(f"    {field}: &[", values, "],", "        ", "    ")
        out.append("};")
    out += ["", "/// In an order in which they may be declared."]
    out += _rust_slice("pub static ROWS: &[TableRow] = &[", names, "];", "    ", "")
    return "\n".join(out) + "\n"


def _rust_slice(start: str, values: Sequence[str], end: str, inner: str, outer: str) -> list[str]:
    """As rustfmt writes a slice: on one line if it is short, else values of up to 10 characters fill lines."""
    inside = ", ".join(values)
    if len(inside) <= 58 and len(start + inside + end) <= 100:
        return [f"{start}{inside}{end}"]
    width = 100 if all(len(value) <= 10 for value in values) else 0
    return [start, *_wrapped(values, inner, width), f"{outer}{end}"]


def emit_go(table: Table, package: str) -> str:
    rows = list(
        zip([_pascal(words) + "Row" for words in identifiers(table.entries)], table.entries, strict=True)
    )
    out = [
        # The form by which Go's own tools know generated code.
        f"// Code generated from {_comment(table.source)} by: {_comment(table.command)}. DO NOT EDIT.",
        "",
        f"package {package}",
        "",
        "// TableKind is as in TypeRow of wire.capnp.",
        "type TableKind uint16",
        "",
        "const (",
        "\tTableKindStruct TableKind = 0",
        "\tTableKindOpaque TableKind = 1",
        ")",
        "",
        "// TableRow is one row of an id table.",
        "type TableRow struct {",
        "\t// WireID is a suggestion; 0: only reachable from event types.",
        "\tWireID uint16",
        "\tTypeID uint64",
        "\tKind   TableKind",
        "\tName   string",
        "\tLayout []uint32",
        "\t// Reaches has the type ids of rows that go before this one, or with it.",
        "\tReaches []uint64",
        "}",
    ]
    for name, entry in rows:
        out += ["", f"// {name} is {_comment(json.dumps(entry.name))}.", f"var {name} = TableRow{{"]
        fields = [
            ("WireID", [f"{entry.wire_id}"]),
            ("TypeID", [_hex64(entry.type_id)]),
            ("Kind", [f"TableKind{entry.kind.capitalize()}"]),
            ("Name", [_go_text(entry.name)]),
        ]
        for field, kind, values in (
            ("Layout", "uint32", [f"0x{number:08x}" for number in entry.layout]),
            ("Reaches", "uint64", [_hex64(number) for number in entry.reaches]),
        ):
            if values:
                lines = [
                    f"[]{kind}{{",
                    *(line.replace("    ", "\t\t", 1) for line in _wrapped(values, "    ")),
                    "\t}",
                ]
                fields.append((field, lines))
        out += _go_fields(fields)
        out.append("}")
    out += ["", "// Rows are in an order in which they may be declared."]
    if rows:
        out.append("var Rows = []TableRow{")
        out += [f"\t{name}," for name, _ in rows]
        out.append("}")
    else:
        out.append("var Rows = []TableRow{}")
    return "\n".join(out) + "\n"


def _go_fields(fields: Sequence[tuple[str, list[str]]]) -> list[str]:
    """As gofmt writes them: values of neighbouring one-line fields are aligned."""
    single = [name for name, lines in fields if len(lines) == 1]
    width = max(map(len, single)) + 1
    out = []
    for name, lines in fields:
        if len(lines) == 1:
            out.append(f"\t{name + ':':<{width}} {lines[0]},")
        else:
            out.append(f"\t{name}: {lines[0]}")
            out += lines[1:-1]
            out.append(f"{lines[-1]},")
    return out


def emit_typescript(table: Table, _: str) -> str:
    out = [
        f"// {_comment(_header(table))}",
        "// Do not edit.",
        "",
        "export interface TableRow {",
        "  /** A suggestion; 0: only reachable from event types. */",
        "  readonly wireId: number;",
        "  readonly typeId: bigint;",
        '  readonly kind: "struct" | "opaque";',
        "  readonly name: string;",
        "  readonly layout: readonly number[];",
        "  /** Type ids of rows that go before this one, or with it. */",
        "  readonly reaches: readonly bigint[];",
        "}",
    ]
    names = [_camel(words) + "Row" for words in identifiers(table.entries)]
    for name, entry in zip(names, table.entries, strict=True):
        out += ["", f"export const {name} = {{"]
        out.append(f"  wireId: {entry.wire_id},")
        out.append(f"  typeId: {_hex64(entry.type_id)}n,")
        out.append(f'  kind: "{entry.kind}",')
        out.append(f"  name: {json.dumps(entry.name)},")
        for field, values in (
            ("layout", [f"0x{number:08x}" for number in entry.layout]),
            ("reaches", [f"{_hex64(number)}n" for number in entry.reaches]),
        ):
            if values:
                out += [f"  {field}: [", *_wrapped(values, "    "), "  ],"]
            else:
                out.append(f"  {field}: [],")
        out.append("} as const;")
    out += ["", "/** In an order in which they may be declared. */"]
    if names:
        out.append("export const rows: readonly TableRow[] = [")
        out += [f"  {name}," for name in names]
        out.append("];")
    else:
        out.append("export const rows: readonly TableRow[] = [];")
    return "\n".join(out) + "\n"


# --- parts ------------------------------------------------------------------------------------------------


def _wrapped(values: Sequence[str], indent: str, width: int = 100) -> Iterator[str]:
    """Yield lines of values, each with a comma behind, as many as fit; of width 0: one a line."""
    line = indent
    for value in values:
        if line != indent and len(line) + len(value) + 1 > width:
            yield line.rstrip()
            line = indent
        line += f"{value}, "
    if line != indent:
        yield line.rstrip()


def _hex64(number: int) -> str:
    return f"0x{number:016x}"


def _camel(words: Sequence[str]) -> str:
    return words[0].lower() + "".join(word[0].upper() + word[1:] for word in words[1:])


def _pascal(words: Sequence[str]) -> str:
    return "".join(word[0].upper() + word[1:] for word in words)


def _comment(text: str) -> str:
    """Nothing in a name may end the comment that it stands in."""
    return re.sub(r"[^\x20-\x7e]|\\$", "?", text)


def _bytes_text(text: str, escape: Callable[[int], str]) -> str:
    shown = (
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\?' else escape(byte)
        for byte in text.encode("utf-8", "surrogateescape")
    )
    return '"' + "".join(shown) + '"'


def _cpp_text(text: str) -> str:
    # Octal: three digits at most, so that no digit that follows can join them. `?` could begin a trigraph.
    return _bytes_text(text, lambda byte: f"\\{byte:03o}")


def _go_text(text: str) -> str:
    return _bytes_text(text, lambda byte: "?" if byte == 0x3F else f"\\x{byte:02x}")


def _rust_text(text: str) -> str:
    shown = (char if " " <= char < "\x7f" and char not in '"\\' else f"\\u{{{ord(char):x}}}" for char in text)
    return '"' + "".join(shown) + '"'


Emitter = Callable[[Table, str], str]

EMITTERS: dict[str, Emitter] = {
    "json": emit_json,
    "c++": emit_cpp,
    "rust": emit_rust,
    "go": emit_go,
    "typescript": emit_typescript,
}
