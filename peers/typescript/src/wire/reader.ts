/**
 * Reads control messages as docs/wire.md section 5 wants it.
 *
 * capnp-es is too lenient for that: it does not look at the kind of a list, nor at the NUL and the UTF-8 of a Text,
 * and takes structs that are smaller than the schema's by writing into the message.
 */

import { UnreadableError } from "../errors.js";
import { BIT, BYTE, decodeText, type ListTarget, type Segments, type StructTarget } from "./pointers.js";

/** Where the second word of a struct ends: the type id of a TypeRow, the count of a DropCount. */
const SECOND_WORD_END = 16;

/** Hands out each byte of a message once: parts that overlap, or are read twice, exhaust it. */
class Budget {
  constructor(private left: number) {}

  take(bytes: number): void {
    this.left -= bytes;
    if (this.left < 0) throw new UnreadableError("the message reads out to more than its own size: parts overlap");
  }
}

/** The root of a control message. */
export function readRoot(segments: Segments): StructReader {
  return readStruct(segments, new Budget(segments.bytes), 0, 0);
}

function readStruct(segments: Segments, budget: Budget, segment: number, at: number): StructReader {
  const target = segments.follow(segment, at);
  if (target === null) return new StructReader(segments, budget, null);
  if (target.kind !== "struct") throw new UnreadableError(`a ${target.kind} pointer where a struct belongs`);
  budget.take(target.dataBytes + target.pointers * 8);
  return new StructReader(segments, budget, target);
}

/** One struct. What lies beyond its end reads as zero, so that a shorter one of an older writer is readable. */
export class StructReader {
  constructor(
    private readonly segments: Segments,
    private readonly budget: Budget,
    private readonly target: StructTarget | null,
  ) {}

  #has(bytes: number): boolean {
    return this.target !== null && bytes <= this.target.dataBytes;
  }

  #view(): DataView {
    return this.segments.views[this.target!.segment]!;
  }

  bool(bit: number): boolean {
    const byte = bit >> 3;
    return this.#has(byte + 1) && ((this.#view().getUint8(this.target!.offset + byte) >> (bit & 7)) & 1) === 1;
  }

  u16(offset: number): number {
    return this.#has(offset + 2) ? this.#view().getUint16(this.target!.offset + offset, true) : 0;
  }

  u32(offset: number): number {
    return this.#has(offset + 4) ? this.#view().getUint32(this.target!.offset + offset, true) : 0;
  }

  u64(offset: number): bigint {
    return this.#has(offset + 8) ? this.#view().getBigUint64(this.target!.offset + offset, true) : 0n;
  }

  /** Offset of pointer `index` in its segment, or -1 if the struct has fewer. */
  #pointer(index: number): number {
    const { target } = this;
    return target === null || index >= target.pointers ? -1 : target.offset + target.dataBytes + index * 8;
  }

  struct(index: number): StructReader {
    const at = this.#pointer(index);
    if (at < 0) return new StructReader(this.segments, this.budget, null);
    return readStruct(this.segments, this.budget, this.target!.segment, at);
  }

  #list(index: number): ListTarget | null {
    const at = this.#pointer(index);
    const target = at < 0 ? null : this.segments.follow(this.target!.segment, at);
    if (target === null) return null;
    if (target.kind !== "list") throw new UnreadableError(`a ${target.kind} pointer where a list belongs`);
    this.budget.take(target.bytes);
    if (target.length > 0 && target.code !== BIT && target.dataBytes + target.pointers === 0) {
      throw new UnreadableError(`a list of ${target.length} elements without words`);
    }
    return target;
  }

  #bytes(index: number): Uint8Array | null {
    const list = this.#list(index);
    if (list === null) return null;
    if (list.code !== BYTE) throw new UnreadableError("a Text or Data is no list of bytes");
    return new Uint8Array(this.segments.views[list.segment]!.buffer as ArrayBuffer, list.offset, list.length);
  }

  text(index: number): string {
    const bytes = this.#bytes(index);
    return bytes === null ? "" : decodeText(bytes);
  }

  /** A copy: it outlives the message. */
  data(index: number): Uint8Array {
    return this.#bytes(index)?.slice() ?? new Uint8Array(0);
  }

  structs(index: number): StructReader[] {
    const list = this.#list(index);
    if (list === null) return [];
    if (list.code === BIT) throw new UnreadableError("a list of bits where a list of structs belongs");
    // Too short for a row's type id, or a drop's count: all are alike, and there may be a million of a byte each. The
    // first stands for all.
    const short = list.dataBytes < SECOND_WORD_END && list.pointers === 0;
    return Array.from({ length: short ? Math.min(list.length, 1) : list.length }, (_, i) => this.#element(list, i));
  }

  #element(list: ListTarget, index: number): StructReader {
    const step = list.dataBytes + list.pointers * 8;
    return new StructReader(this.segments, this.budget, {
      kind: "struct",
      segment: list.segment,
      offset: list.offset + index * step,
      dataBytes: list.dataBytes,
      pointers: list.pointers,
    });
  }

  /** Numbers: without an object for each, a frame may hold a quarter of a million. */
  #scalars<T>(index: number, bytes: number, read: (view: DataView, at: number) => T): T[] {
    const list = this.#list(index);
    if (list === null) return [];
    if (list.dataBytes < bytes) throw new UnreadableError(`list elements of ${list.dataBytes} bytes, not of ${bytes}`);
    const view = this.segments.views[list.segment]!;
    const step = list.dataBytes + list.pointers * 8;
    return Array.from({ length: list.length }, (_, i) => read(view, list.offset + i * step));
  }

  u32s(index: number): number[] {
    return this.#scalars(index, 4, (view, at) => view.getUint32(at, true));
  }

  u64s(index: number): bigint[] {
    return this.#scalars(index, 8, (view, at) => view.getBigUint64(at, true));
  }

  texts(index: number): string[] {
    const list = this.#list(index);
    if (list === null) return [];
    if (list.pointers < 1) throw new UnreadableError("a list without pointers where a list of Text belongs");
    return Array.from({ length: list.length }, (_, i) => this.#element(list, i).text(0));
  }
}
