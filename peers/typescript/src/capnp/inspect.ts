/**
 * Looks through a received message before capnp-es may read it.
 *
 * capnp-es follows cycles for ever, reads lists beyond their end, and makes arrays of as many elements as a list
 * without words claims to have: half a billion of them kill the process. What this check has passed is finite and
 * within its segments. A pointer that is bad is only noted: reading that field throws, the others can be read.
 */

import { UnreadableError } from "../errors.js";
import { COMPOSITE, POINTER, Segments, type ListTarget } from "../wire/pointers.js";

/** Pointers that lead to pointers, from the root. As in the C++ library. */
const MAX_DEPTH = 64;
/** In all lists of a message whose elements have no words, such as List(Void). */
const MAX_EMPTY_ELEMENTS = 262_144;

/** Names the place of a pointer in a message. */
export function placeOf(segment: number, byteOffset: number): number {
  return segment * 2 ** 32 + byteOffset;
}

class Inspection {
  readonly bad = new Map<number, string>();
  readonly #segments: Segments;
  /** No writer makes two pointers to one object: twice the message's size is generous. */
  #bytesLeft: number;
  #emptyElementsLeft = MAX_EMPTY_ELEMENTS;

  constructor(buffers: readonly ArrayBuffer[]) {
    this.#segments = new Segments(buffers);
    this.#bytesLeft = this.#segments.bytes * 2;
  }

  #take(bytes: number): void {
    this.#bytesLeft -= bytes;
    if (this.#bytesLeft < 0) {
      throw new UnreadableError(
        `a message of ${this.#segments.bytes} bytes reads out to more than twice its size: its pointers share or cycle`,
      );
    }
  }

  visit(segment: number, at: number, depth: number): void {
    let target;
    try {
      target = this.#segments.follow(segment, at);
    } catch (error) {
      this.bad.set(placeOf(segment, at), (error as UnreadableError).message);
      return;
    }
    if (target === null) return;
    if (target.kind === "other") {
      this.bad.set(placeOf(segment, at), "the pointer is a capability");
    } else if (depth > MAX_DEPTH) {
      this.bad.set(placeOf(segment, at), `nested deeper than ${MAX_DEPTH}`);
    } else if (target.kind === "struct") {
      this.#take(8 + target.dataBytes + target.pointers * 8);
      this.#visitAll(target.segment, target.offset + target.dataBytes, target.pointers, depth + 1);
    } else {
      this.#visitList(target, segment, at, depth + 1);
    }
  }

  #visitList(list: ListTarget, segment: number, at: number, depth: number): void {
    this.#take(8 + list.bytes);
    if (list.dataBytes + list.pointers === 0 && list.code !== 1) {
      this.#emptyElementsLeft -= list.length;
      if (this.#emptyElementsLeft < 0) {
        this.bad.set(placeOf(segment, at), `lists of more than ${MAX_EMPTY_ELEMENTS} elements without words`);
      }
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

/**
 * The places of pointers that must not be followed, each with the reason; null if there is none.
 * Throws an UnreadableError if the message as a whole cannot be trusted.
 */
export function inspect(buffers: readonly ArrayBuffer[]): ReadonlyMap<number, string> | null {
  const inspection = new Inspection(buffers);
  inspection.visit(0, 0, 0);
  return inspection.bad.size === 0 ? null : inspection.bad;
}
