/**
 * Looks through a received message before capnp-es may read it.
 *
 * capnp-es follows cycles for ever, reads lists beyond their end, and makes arrays of as many elements as a list
 * without words claims to have: half a billion of them kill the process. What this check has passed is finite, within
 * its segments, and each word of it belongs to one object; so what capnp-es writes into a message while it reads
 * changes no other part. A pointer that is bad is only noted: reading that field throws, the others can be read.
 */

import { UnreadableError } from "../errors.js";
import { BIT, COMPOSITE, POINTER, Segments, type ListTarget } from "../wire/pointers.js";

/** Pointers that lead to pointers, from the root. As in the C++ library. */
const MAX_DEPTH = 64;
/** In all lists of a message whose elements have no words, such as List(Void). */
const MAX_EMPTY_ELEMENTS = 262_144;
/** To note one costs more memory than the pointer itself. */
const MAX_BAD_POINTERS = 1000;

/** Names the place of a pointer in a message. */
export function placeOf(segment: number, byteOffset: number): number {
  return segment * 2 ** 32 + byteOffset;
}

class Inspection {
  readonly bad = new Map<number, string>();
  readonly #segments: Segments;
  /** Of each segment, a byte for each word: 1 if it belongs to an object already. */
  readonly #taken: readonly Uint8Array[];
  #emptyElementsLeft = MAX_EMPTY_ELEMENTS;

  constructor(buffers: readonly ArrayBuffer[]) {
    this.#segments = new Segments(buffers);
    this.#taken = buffers.map((buffer) => new Uint8Array(buffer.byteLength / 8));
  }

  /** Every word belongs to one object: no writer makes pointers that share, and those that cycle never end. */
  #take = (segment: number, at: number, bytes: number): void => {
    const words = this.#taken[segment]!;
    const start = at / 8;
    const end = start + bytes / 8;
    // A short loop costs less than a view.
    const free = bytes <= 256 ? allZero(words, start, end) : words.subarray(start, end).indexOf(1) < 0;
    if (!free) throw new UnreadableError("it shares words with another part of the message");
    words.fill(1, start, end);
  };

  visit(segment: number, at: number, depth: number): void {
    try {
      this.#follow(segment, at, depth);
    } catch (error) {
      if (!(error instanceof UnreadableError) || this.bad.size === MAX_BAD_POINTERS) throw error;
      this.bad.set(placeOf(segment, at), error.message);
    }
  }

  root(): void {
    this.#take(0, 0, 8);
    this.visit(0, 0, 0);
  }

  #follow(segment: number, at: number, depth: number): void {
    const target = this.#segments.follow(segment, at, this.#take);
    if (target === null) return;
    if (target.kind === "other") throw new UnreadableError("the pointer is a capability");
    if (depth > MAX_DEPTH) throw new UnreadableError(`nested deeper than ${MAX_DEPTH}`);
    if (target.kind === "struct") {
      this.#take(target.segment, target.offset, target.dataBytes + target.pointers * 8);
      this.#visitAll(target.segment, target.offset + target.dataBytes, target.pointers, depth + 1);
    } else {
      this.#followList(target, depth + 1);
    }
  }

  #followList(list: ListTarget, depth: number): void {
    const tag = list.code === COMPOSITE ? 8 : 0;
    this.#take(list.segment, list.offset - tag, list.bytes);
    if (list.dataBytes + list.pointers === 0 && list.code !== BIT) {
      if (list.length > this.#emptyElementsLeft) {
        throw new UnreadableError(`lists of more than ${MAX_EMPTY_ELEMENTS} elements without words`);
      }
      this.#emptyElementsLeft -= list.length;
    } else if (list.code === POINTER) {
      this.#visitAll(list.segment, list.offset, list.length, depth);
    } else if (list.code === COMPOSITE && list.pointers > 0) {
      const step = list.dataBytes + list.pointers * 8;
      for (let i = 0; i < list.length; i += 1) {
        this.#visitAll(list.segment, list.offset + i * step + list.dataBytes, list.pointers, depth);
      }
    }
  }

  #visitAll(segment: number, at: number, count: number, depth: number): void {
    for (let i = 0; i < count; i += 1) this.visit(segment, at + i * 8, depth);
  }
}

function allZero(bytes: Uint8Array, start: number, end: number): boolean {
  for (let i = start; i < end; i += 1) if (bytes[i] !== 0) return false;
  return true;
}

/**
 * The places of pointers that must not be followed, each with the reason; null if there is none.
 * Throws an UnreadableError if the message as a whole cannot be trusted.
 */
export function inspect(buffers: readonly ArrayBuffer[]): ReadonlyMap<number, string> | null {
  const inspection = new Inspection(buffers);
  inspection.root();
  return inspection.bad.size === 0 ? null : inspection.bad;
}
