/** Id tables: the rows that a peer declared, and those that this side must declare to it. docs/wire.md section 6. */

import { ProtocolError, UsageError } from "../errors.js";
import type { EventType, TableRow } from "../types.js";
import type { Row } from "../wire/control.js";
import { MAX_UNNUMBERED, MAX_WIRE_IDS, ROW_BYTES, SHORT_TEXT_BYTES, TABLE_BYTES } from "../wire/limits.js";

function invalid(text: string): never {
  throw new ProtocolError("invalidTable", text);
}

function hex(typeId: bigint): string {
  return `0x${typeId.toString(16).padStart(16, "0")}`;
}

/** What one peer declared. */
export class PeerTable {
  readonly #rows = new Map<bigint, { row: Row; wireId: number }>();
  readonly #types = new Map<number, bigint>();
  #bytes = 0;
  #unnumbered = 0;
  #verdicts = new Map<bigint, string | null>();

  add(rows: readonly Row[]): void {
    for (const row of rows) this.#add(row);
    if (rows.length > 0) this.#verdicts.clear();
  }

  #add(row: Row): void {
    const nameBytes = Buffer.byteLength(row.name);
    if (row.typeId === 0n) invalid("a row has the type id 0");
    if (typeof row.kind === "number") invalid(`the row of ${hex(row.typeId)} has the unknown kind ${row.kind}`);
    if (nameBytes > SHORT_TEXT_BYTES) {
      invalid(`the row of ${hex(row.typeId)} has a name of ${nameBytes} bytes; the limit is ${SHORT_TEXT_BYTES}`);
    }
    if (row.kind === "opaque" && row.layout.length > 0) invalid(`the opaque type ${hex(row.typeId)} has a layout`);
    const known = this.#rows.get(row.typeId);
    if (known === undefined) {
      this.#bytes += ROW_BYTES + nameBytes + 4 * row.layout.length;
      if (this.#bytes > TABLE_BYTES) invalid(`an id table of more than ${TABLE_BYTES} bytes`);
      if (row.wireId === 0 && (this.#unnumbered += 1) > MAX_UNNUMBERED) {
        invalid(`more than ${MAX_UNNUMBERED} types that first came with wire id 0`);
      }
    } else if (!sameRow(known.row, row)) {
      invalid(`two rows of ${hex(row.typeId)} (${known.row.name}) differ`);
    }
    const entry = known ?? { row, wireId: 0 };
    this.#rows.set(row.typeId, entry);
    if (row.wireId !== 0) this.#number(entry, row);
  }

  #number(entry: { wireId: number }, row: Row): void {
    const other = this.#types.get(row.wireId);
    if (other !== undefined && other !== row.typeId) {
      invalid(`wire id ${row.wireId} stands for ${hex(other)} and for ${hex(row.typeId)}`);
    }
    if (entry.wireId !== 0 && entry.wireId !== row.wireId) {
      invalid(`${hex(row.typeId)} has the wire ids ${entry.wireId} and ${row.wireId}`);
    }
    entry.wireId = row.wireId;
    this.#types.set(row.wireId, row.typeId);
  }

  /** The type that a wire id stands for. */
  typeOf(wireId: number): bigint | undefined {
    return this.#types.get(wireId);
  }

  hasNumber(typeId: bigint): boolean {
    return (this.#rows.get(typeId)?.wireId ?? 0) !== 0;
  }

  /** Why the type is disabled between the two endpoints; null if it is not. Section 6.3. */
  difference(type: EventType): string | null {
    let verdict = this.#verdicts.get(type.typeId);
    if (verdict === undefined) {
      verdict = [type.row, ...type.reached].map((row) => this.#compare(row)).find((text) => text !== null) ?? null;
      this.#verdicts.set(type.typeId, verdict);
    }
    return verdict;
  }

  #compare(own: TableRow): string | null {
    const theirs = this.#rows.get(own.typeId)?.row;
    if (theirs === undefined) return null;
    if (theirs.kind !== own.kind) return `${own.name} is ${own.kind} here and ${theirs.kind} there`;
    const length = Math.min(own.layout.length, theirs.layout.length);
    for (let i = 0; i < length; i += 1) {
      if (own.layout[i] !== theirs.layout[i]) return `field @${i} of ${own.name} is not the same here and there`;
    }
    return null;
  }
}

function sameRow(a: Row, b: Row): boolean {
  const layouts = a.layout.length === b.layout.length && a.layout.every((hash, i) => hash === b.layout[i]);
  return a.kind === b.kind && a.name === b.name && layouts;
}

/** The numbers that an endpoint gives to its types: the same on all its connections. */
export class OwnTable {
  readonly #numbers = new Map<bigint, number>();
  readonly #types = new Map<bigint, EventType>();

  /** The type's wire id, given now if it has none yet. */
  numberOf(type: EventType): number {
    const known = this.#numbers.get(type.typeId);
    if (known !== undefined) return known;
    if (this.#numbers.size === MAX_WIRE_IDS) {
      throw new UsageError(`${type.name} would be event type ${MAX_WIRE_IDS + 1} of this endpoint; the limit is ${MAX_WIRE_IDS}`);
    }
    const number = this.#numbers.size + 1;
    this.#numbers.set(type.typeId, number);
    this.#types.set(type.typeId, type);
    return number;
  }

  typeOf(typeId: bigint): EventType | undefined {
    return this.#types.get(typeId);
  }
}

/** What was declared on one connection. */
export class Declared {
  /** Type ids, and whether they were declared with a wire id. */
  readonly #sent = new Map<bigint, boolean>();

  constructor(private readonly own: OwnTable) {}

  /** The rows that are still to be declared before these types may be used. */
  rowsFor(types: Iterable<EventType>): Row[] {
    const rows: Row[] = [];
    for (const type of types) {
      if (this.#sent.get(type.typeId) === true) continue;
      for (const row of type.reached) {
        if (!this.#sent.has(row.typeId)) rows.push(this.#row(row, 0));
      }
      rows.push(this.#row(type.row, this.own.numberOf(type)));
    }
    return rows;
  }

  #row(row: TableRow, wireId: number): Row {
    this.#sent.set(row.typeId, wireId !== 0);
    return { wireId, typeId: row.typeId, kind: row.kind, name: row.name, layout: row.layout };
  }
}

/** Part rows so that each part fits into one control frame, with room for the rest of a hello. */
export function partRows(rows: readonly Row[]): Row[][] {
  const parts: Row[][] = [[]];
  let bytes = 0;
  for (const row of rows) {
    const size = 48 + Buffer.byteLength(row.name) + 4 * row.layout.length + 16;
    if (bytes + size > 900_000) {
      parts.push([]);
      bytes = 0;
    }
    parts.at(-1)!.push(row);
    bytes += size;
  }
  return parts;
}
