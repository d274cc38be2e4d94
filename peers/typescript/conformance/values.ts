/** Values in the JSON forms of tests/vectors/README.md, read from messages and built into them. */

import { List, Pointer, type Struct, Text, utils as plainUtils } from "capnp-es";
import * as capnp from "../src/capnp.js";
import * as schema from "../generated/conformance.js";
import { ANY_KINDS, type Kind, type Plan, plans, type TypeName } from "./plans.js";

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type JsonObject = { [key: string]: Json };
type Fields = Record<string, unknown>;

// --- scalars ----------------------------------------------------------------------------------------------

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex");
}

export function floatBits(value: number, bytes: 4 | 8): string {
  const view = new DataView(new ArrayBuffer(bytes));
  if (bytes === 4) view.setFloat32(0, value);
  else view.setFloat64(0, value);
  return hex(new Uint8Array(view.buffer));
}

export function floatOf(bits: Json): number {
  const bytes = Uint8Array.from(Buffer.from(bits as string, "hex"));
  const view = new DataView(bytes.buffer);
  return bytes.length === 4 ? view.getFloat32(0) : view.getFloat64(0);
}

// --- reading ----------------------------------------------------------------------------------------------

/** The value of a struct of this type, whole. */
export function readValue(type: TypeName | string, struct: Struct): Json {
  return readStruct(struct, plans[type as TypeName]);
}

function readStruct(struct: Struct, plan: Plan): Json {
  const value: JsonObject = {};
  const members = plan.fields.filter(({ member }) => member !== undefined);
  const which = members.length === 0 ? undefined : (struct as unknown as { which(): number }).which();
  if (which !== undefined && !members.some(({ member }) => member === which)) value["unknown"] = which;
  for (const { name, kind, member } of plan.fields) {
    if (member === undefined || member === which) value[name] = readField(struct, name, kind);
  }
  return value;
}

function readField(struct: Struct, name: string, kind: Kind): Json {
  if (kind.k === "void") return null;
  if (kind.k === "struct" && kind.nullable === true) {
    const has = (struct as unknown as Record<string, () => boolean>)[method("has", name)]!;
    if (!has.call(struct)) return null;
  }
  if (kind.k === "anything") return readAnything(struct as schema.Everything);
  return readAs((struct as unknown as Fields)[name], kind);
}

function readAs(value: unknown, kind: Kind): Json {
  switch (kind.k) {
    case "void":
      return null;
    case "bool":
    case "int":
    case "text":
      return value as Json;
    case "big":
      return String(value);
    case "f32":
      return floatBits(value as number, 4);
    case "f64":
      return floatBits(value as number, 8);
    case "data":
      return hex((value as capnp.Data).toUint8Array());
    case "enum":
      return kind.names[value as number] ?? (value as number);
    case "struct":
    case "group":
      return readStruct(value as Struct, kind.plan());
    case "list":
      return (value as List<unknown>).toArray().map((element) => readAs(element, kind.of));
    case "anything":
      throw new Error("a list of AnyPointer is no field of conformance.capnp");
  }
}

function readAnything(struct: schema.Everything): Json {
  const pointer = struct.anything;
  switch (ANY_KINDS[struct.anyKind]) {
    case "text":
      return { text: capnp.asText(pointer) };
    case "data":
      return { data: hex(capnp.asData(pointer).toUint8Array()) };
    case "inner":
      return { inner: readStruct(capnp.asStruct(pointer, schema.Inner), plans.Inner) };
    case "u16s":
      return { u16s: capnp.asList(pointer, capnp.Uint16List).toArray() };
    default:
      return { null: null };
  }
}

// --- building ---------------------------------------------------------------------------------------------

function method(prefix: "init" | "has", name: string): string {
  return `_${prefix}${name[0]!.toUpperCase()}${name.slice(1)}`;
}

/** Set the fields that the value has. */
export function buildValue(type: TypeName | string, struct: Struct, value: Json): void {
  buildStruct(struct, plans[type as TypeName], value);
}

function buildStruct(struct: Struct, plan: Plan, value: Json): void {
  for (const [name, part] of Object.entries(value as JsonObject)) {
    const field = plan.fields.find((one) => one.name === name);
    if (field === undefined) throw new Error(`no field is named ${name}`);
    buildField(struct, name, field.kind, part, field.member !== undefined);
  }
}

function buildField(struct: Struct, name: string, kind: Kind, value: Json, isMember: boolean): void {
  const fields = struct as unknown as Fields;
  const init = (length?: number): unknown =>
    (fields[method("init", name)] as (length?: number) => unknown).call(struct, length);
  switch (kind.k) {
    case "void":
      if (isMember) fields[name] = true;
      break;
    case "bool":
    case "int":
    case "text":
      fields[name] = value;
      break;
    case "big":
      fields[name] = BigInt(value as string);
      break;
    case "f32":
    case "f64":
      fields[name] = floatOf(value);
      break;
    case "enum":
      fields[name] = enumOf(value, kind.names);
      break;
    case "data": {
      const bytes = Buffer.from(value as string, "hex");
      (init(bytes.length) as capnp.Data).copyBuffer(bytes);
      break;
    }
    case "struct":
      if (value !== null) buildStruct(init() as Struct, kind.plan(), value);
      break;
    case "group":
      buildStruct(init() as Struct, kind.plan(), value);
      break;
    case "list":
      buildList(init((value as Json[]).length) as List<unknown>, kind.of, value as Json[]);
      break;
    case "anything":
      buildAnything(struct as schema.Everything, value as JsonObject);
      break;
  }
}

function enumOf(value: Json, names: readonly string[]): number {
  return typeof value === "number" ? value : names.indexOf(value as string);
}

function buildList(list: List<unknown>, of: Kind, values: Json[]): void {
  values.forEach((value, i) => {
    switch (of.k) {
      case "void":
        break;
      case "bool":
      case "int":
      case "text":
        list.set(i, value);
        break;
      case "big":
        list.set(i, BigInt(value as string));
        break;
      case "f32":
      case "f64":
        list.set(i, floatOf(value));
        break;
      case "enum":
        list.set(i, enumOf(value, of.names));
        break;
      case "data":
        setData(list.get(i) as Pointer, value as string);
        break;
      case "struct":
        buildStruct(list.get(i) as Struct, of.plan(), value);
        break;
      case "list": {
        const inner = capnp.initAnyList(list.get(i) as Pointer, of.lists, (value as Json[]).length);
        buildList(inner as List<unknown>, of.of, value as Json[]);
        break;
      }
      default:
        throw new Error(`a list of ${of.k} is no field of conformance.capnp`);
    }
  });
}

function setData(pointer: Pointer, value: string): void {
  const bytes = Buffer.from(value, "hex");
  capnp.initAnyList(pointer, capnp.Uint8List, bytes.length);
  capnp.asData(pointer).copyBuffer(bytes);
}

function buildAnything(struct: schema.Everything, value: JsonObject): void {
  const [[kind, part]] = Object.entries(value) as [[string, Json]];
  struct.anyKind = ANY_KINDS.indexOf(kind as never) as schema.AnyKind;
  const pointer = struct.anything;
  if (kind === "text") new Text(pointer.segment, pointer.byteOffset).set(0, part as string);
  if (kind === "data") setData(pointer, part as string);
  if (kind === "inner") {
    const inner = new schema.Inner(pointer.segment, pointer.byteOffset);
    plainUtils.initStruct(schema.Inner._capnp.size, inner);
    buildStruct(inner, plans.Inner, part);
  }
  if (kind === "u16s") {
    const list = capnp.initAnyList(pointer, capnp.Uint16List, (part as Json[]).length);
    (part as number[]).forEach((number, i) => list.set(i, number));
  }
}

/** A long list or text in a vector stands shortened: expand it. */
export function expand(value: Json): Json {
  if (Array.isArray(value)) return value.map(expand);
  if (value === null || typeof value !== "object") return value;
  const { repeat, repeat_text: repeatText, times } = value;
  if (typeof times === "number") {
    if (typeof repeat === "string") return repeat.repeat(times);
    if (typeof repeatText === "string") return repeatText.repeat(times);
  }
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, expand(part)]));
}
