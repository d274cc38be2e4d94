/** The structs of conformance.capnp, field by field, for their JSON forms: tests/vectors/README.md, "Values". */

import type { ListCtor, Struct, StructCtor } from "capnp-es";
import { eventType, type EventType } from "../src/index.js";
import * as capnp from "../src/capnp.js";
import * as schema from "../generated/conformance.js";
import { rows } from "./rows.js";

export type Kind =
  | { readonly k: "void" | "bool" | "int" | "big" | "f32" | "f64" | "text" | "data" | "anything" }
  | { readonly k: "enum"; readonly names: readonly string[] }
  | { readonly k: "struct"; readonly plan: () => Plan; readonly nullable?: boolean }
  | { readonly k: "group"; readonly plan: () => Plan }
  /** `lists` makes a list of these when it is an element itself. */
  | { readonly k: "list"; readonly of: Kind; readonly lists: ListCtor<never> };

export interface Field {
  readonly name: string;
  readonly kind: Kind;
  /** Value of the discriminant that sets this member of a union. */
  readonly member?: number;
}

export interface Plan {
  readonly struct: StructCtor<Struct> | null;
  readonly fields: readonly Field[];
}

const bool: Kind = { k: "bool" };
const int: Kind = { k: "int" };
const big: Kind = { k: "big" };
const f32: Kind = { k: "f32" };
const f64: Kind = { k: "f64" };
const text: Kind = { k: "text" };
const data: Kind = { k: "data" };
const nothing: Kind = { k: "void" };
export const COLORS = ["red", "green", "blue"] as const;
export const ANY_KINDS = ["null", "text", "data", "inner", "u16s"] as const;
const color: Kind = { k: "enum", names: COLORS };
const inner: Kind = { k: "struct", plan: (): Plan => plans.Inner };

function list(of: Kind, lists: unknown): Kind {
  return { k: "list", of, lists: lists as ListCtor<never> };
}

const inners = list(inner, capnp.CompositeList(schema.Inner));

function fields(...pairs: [string, Kind, number?][]): Field[] {
  return pairs.map(([name, kind, member]) => (member === undefined ? { name, kind } : { name, kind, member }));
}

const place: Plan = { struct: null, fields: fields(["x", f64], ["label", text], ["inner", inner]) };
const span: Plan = { struct: null, fields: fields(["first", int], ["last", int]) };
const shape: Plan = {
  struct: null,
  fields: fields(["circle", f64, 0], ["polygon", list(f32, capnp.Float32List), 1], ["blank", nothing, 2]),
};
const choice: Plan = { struct: null, fields: fields(["left", int, 0], ["right", text, 1]) };

export const plans = {
  Inner: { struct: schema.Inner, fields: fields(["number", int], ["label", text], ["more", inners]) },
  Everything: {
    struct: schema.Everything,
    fields: fields(
      ["nothing", nothing],
      ["flag", bool],
      ["i8", int],
      ["i16", int],
      ["i32", int],
      ["i64", big],
      ["u8", int],
      ["u16", int],
      ["u32", int],
      ["u64", big],
      ["f32", f32],
      ["f64", f64],
      ["text", text],
      ["data", data],
      ["color", color],
      ["inner", inner],
      ["nothings", list(nothing, capnp.VoidList)],
      ["flags", list(bool, capnp.BoolList)],
      ["i8s", list(int, capnp.Int8List)],
      ["i16s", list(int, capnp.Int16List)],
      ["i32s", list(int, capnp.Int32List)],
      ["i64s", list(big, capnp.Int64List)],
      ["u8s", list(int, capnp.Uint8List)],
      ["u16s", list(int, capnp.Uint16List)],
      ["u32s", list(int, capnp.Uint32List)],
      ["u64s", list(big, capnp.Uint64List)],
      ["f32s", list(f32, capnp.Float32List)],
      ["f64s", list(f64, capnp.Float64List)],
      ["texts", list(text, capnp.TextList)],
      ["datas", list(data, capnp.DataList)],
      ["colors", list(color, capnp.Uint16List)],
      ["inners", inners],
      ["u16Lists", list(list(int, capnp.Uint16List), null)],
      ["textLists", list(list(text, capnp.TextList), null)],
      ["innerLists", list(inners, null)],
      ["place", { k: "group", plan: () => place }],
      ["none", nothing, 0],
      ["count", int, 1],
      ["word", text, 2],
      ["part", inner, 3],
      ["span", { k: "group", plan: () => span }, 4],
      ["shape", { k: "group", plan: () => shape }],
      ["anyKind", { k: "enum", names: ANY_KINDS }],
      ["anything", { k: "anything" }],
      ["flagDefault", bool],
      ["i16Default", int],
      ["f64Default", f64],
      ["textDefault", text],
      ["dataDefault", data],
      ["colorDefault", color],
      ["u8sDefault", list(int, capnp.Uint8List)],
      ["innerDefault", inner],
      ["again", { k: "struct", plan: (): Plan => plans.Everything, nullable: true }],
    ),
  },
  Count: { struct: schema.Count, fields: fields(["number", big]) },
  Blob: { struct: schema.Blob, fields: fields(["id", int], ["data", data]) },
  Late: { struct: schema.Late, fields: fields(["text", text]) },
  Evolving: {
    struct: schema.Evolving,
    fields: fields(["number", int], ["text", text], ["inner", inner], ["choice", { k: "group", plan: () => choice }]),
  },
  Ask: {
    struct: schema.Ask,
    fields: fields(["number", big], ["mode", { k: "enum", names: ["answer", "fail", "silence"] }]),
  },
  Answer: { struct: schema.Answer, fields: fields(["number", big], ["text", text]) },
} satisfies Record<string, Plan>;

export type TypeName = keyof typeof plans;

export const Everything = eventType(schema.Everything, rows);
export const Count = eventType(schema.Count, rows);
export const Blob = eventType(schema.Blob, rows);
export const Late = eventType(schema.Late, rows);
export const Evolving = eventType(schema.Evolving, rows);
export const Ask = eventType(schema.Ask, rows);
export const Answer = eventType(schema.Answer, rows);

/** The event types by the names that commands and vectors give them. */
export const types = { Everything, Count, Blob, Late, Evolving, Ask, Answer } as Record<string, EventType>;

const names = new Map(Object.entries(types).map(([name, type]) => [type.typeId, name]));

export function nameOf(typeId: bigint): string {
  return names.get(typeId) ?? `0x${typeId.toString(16)}`;
}

export function typeNamed(name: unknown): EventType {
  const type = typeof name === "string" ? types[name] : undefined;
  if (type === undefined) throw new Error(`no event type is named ${JSON.stringify(name)}`);
  return type;
}
