/** Event types: a class that capnp-es made, and the row that the other side needs to know of it. */

import type { Struct, StructCtor } from "capnp-es";
import { UsageError } from "./errors.js";

/** One row as `lahja-capn table --language typescript` writes it. */
export interface TableRow {
  readonly wireId: number;
  readonly typeId: bigint;
  readonly kind: "struct" | "opaque";
  readonly name: string;
  /** Element k is the hash of the field with ordinal k; empty: not checked. */
  readonly layout: readonly number[];
  /** Type ids of the structs that are reachable from this one. */
  readonly reaches: readonly bigint[];
}

export interface EventType<T extends Struct = Struct> {
  readonly struct: StructCtor<T>;
  readonly typeId: bigint;
  /** For people: the row's name. */
  readonly name: string;
  readonly row: TableRow;
  /** Rows of every struct that is reachable from this one, without itself. */
  readonly reached: readonly TableRow[];
}

/** Join a generated class with its row among `rows`. */
export function eventType<T extends Struct>(struct: StructCtor<T>, rows: readonly TableRow[]): EventType<T> {
  const byId = new Map(rows.map((row) => [row.typeId, row]));
  const typeId = BigInt(`0x${struct._capnp.id}`);
  const row = byId.get(typeId);
  if (row === undefined) {
    throw new UsageError(
      `no row has the type id 0x${struct._capnp.id} of ${struct._capnp.displayName}; ` +
        "make the rows from the same schema: lahja-capn table --language typescript FILE.capnp",
    );
  }
  const reached = new Map<bigint, TableRow>();
  const collect = (from: TableRow): void => {
    for (const id of from.reaches) {
      const next = byId.get(id);
      if (next === undefined || reached.has(id) || id === typeId) continue;
      reached.set(id, next);
      collect(next);
    }
  };
  collect(row);
  return { struct, typeId, name: row.name, row, reached: [...reached.values()] };
}
