/**
 * Where the pointers of a message lead, with every bound checked.
 *
 * Both readers stand on this: the strict one of control messages (reader.ts), and the check that a message of the
 * user's passes before capnp-es may read it (../capnp/inspect.ts).
 */

import { UnreadableError } from "../errors.js";

/** Bits of data in an element of a list, by the pointer's code; 6 is a list of pointers, 7 one of structs. */
const ELEMENT_BITS = [0, 1, 8, 16, 32, 64, 0, 0] as const;
export const VOID = 0;
export const BIT = 1;
export const BYTE = 2;
export const POINTER = 6;
export const COMPOSITE = 7;

export interface StructTarget {
  readonly kind: "struct";
  readonly segment: number;
  /** Bytes, from the segment's start. */
  readonly offset: number;
  readonly dataBytes: number;
  readonly pointers: number;
}

export interface ListTarget {
  readonly kind: "list";
  readonly segment: number;
  /** Of element 0, bytes: behind the tag of a list of structs. */
  readonly offset: number;
  /** The pointer's code for the size of an element. */
  readonly code: number;
  readonly length: number;
  /** Of one element; of a list of bits 0. */
  readonly dataBytes: number;
  readonly pointers: number;
  /** What the list occupies, its tag included. */
  readonly bytes: number;
}

export interface OtherTarget {
  readonly kind: "other";
}

export type Target = StructTarget | ListTarget | OtherTarget;

function unreadable(what: string): never {
  throw new UnreadableError(what);
}

/** The segments of one message. */
export class Segments {
  readonly views: readonly DataView[];
  /** Bytes of all segments. */
  readonly bytes: number;

  constructor(buffers: readonly ArrayBuffer[]) {
    this.views = buffers.map((buffer) => new DataView(buffer));
    this.bytes = buffers.reduce((sum, buffer) => sum + buffer.byteLength, 0);
  }

  /**
   * What the pointer at this place leads to; null for a null pointer. `pad` is told of the landing pad of a far
   * pointer: its segment, and where and how long it is in bytes.
   */
  follow(segment: number, at: number, pad?: (segment: number, at: number, bytes: number) => void): Target | null {
    const view = this.views[segment]!;
    const low = view.getUint32(at, true);
    const high = view.getUint32(at + 4, true);
    if (low === 0 && high === 0) return null;
    if ((low & 3) !== 2) return this.#decode(low, high, segment, at + 8 + (low >> 2) * 8);
    return this.#followFar(low, high, pad);
  }

  #followFar(low: number, segment: number, pad?: (segment: number, at: number, bytes: number) => void): Target {
    const view = this.views[segment];
    if (view === undefined) unreadable(`a far pointer leads to segment ${segment} of ${this.views.length}`);
    const at = (low >>> 3) * 8;
    const double = (low & 4) !== 0;
    if (at + (double ? 16 : 8) > view.byteLength) {
      unreadable(`a far pointer leads to byte ${at} of a segment of ${view.byteLength}`);
    }
    pad?.(segment, at, double ? 16 : 8);
    const padLow = view.getUint32(at, true);
    const padHigh = view.getUint32(at + 4, true);
    if (!double) {
      if ((padLow & 3) === 2) unreadable("a far pointer leads to another one");
      return this.#decode(padLow, padHigh, segment, at + 8 + (padLow >> 2) * 8);
    }
    if ((padLow & 7) !== 2) unreadable("the landing pad of a double far pointer does not begin with a far pointer");
    if (padHigh >= this.views.length) unreadable(`a far pointer leads to segment ${padHigh} of ${this.views.length}`);
    const tagLow = view.getUint32(at + 8, true);
    if ((tagLow & 3) > 1) unreadable("the tag of a double far pointer is no struct or list pointer");
    return this.#decode(tagLow, view.getUint32(at + 12, true), padHigh, (padLow >>> 3) * 8);
  }

  #decode(low: number, high: number, segment: number, offset: number): Target {
    const size = this.views[segment]!.byteLength;
    const kind = low & 3;
    if (kind === 3) return { kind: "other" };
    if (kind === 0) {
      const dataBytes = (high & 0xffff) * 8;
      const pointers = high >>> 16;
      if (offset < 0 || offset + dataBytes + pointers * 8 > size) {
        unreadable(`a struct of ${dataBytes / 8 + pointers} words at byte ${offset} of a segment of ${size}`);
      }
      return { kind: "struct", segment, offset, dataBytes, pointers };
    }
    const code = high & 7;
    const count = high >>> 3;
    if (code === COMPOSITE) return this.#decodeStructs(segment, offset, count, size);
    const bits = code === POINTER ? 64 : ELEMENT_BITS[code]!;
    const bytes = Math.ceil((bits * count) / 64) * 8;
    if (offset < 0 || offset + bytes > size) {
      unreadable(`a list of ${bytes} bytes at byte ${offset} of a segment of ${size}`);
    }
    const pointers = code === POINTER ? 1 : 0;
    return { kind: "list", segment, offset, code, length: count, dataBytes: pointers ? 0 : bits >> 3, pointers, bytes };
  }

  #decodeStructs(segment: number, offset: number, words: number, size: number): ListTarget {
    if (offset < 0 || offset + 8 + words * 8 > size) {
      unreadable(`a list of ${words} words at byte ${offset} of a segment of ${size}`);
    }
    const view = this.views[segment]!;
    const tag = view.getUint32(offset, true);
    const sizes = view.getUint32(offset + 4, true);
    if ((tag & 3) !== 0) unreadable("the tag of a list of structs is no struct pointer");
    const length = tag >>> 2;
    const dataBytes = (sizes & 0xffff) * 8;
    const pointers = sizes >>> 16;
    if (length * (dataBytes / 8 + pointers) > words) {
      unreadable(`${length} structs of ${dataBytes / 8 + pointers} words in a list of ${words} words`);
    }
    const bytes = 8 + words * 8;
    return { kind: "list", segment, offset: offset + 8, code: COMPOSITE, length, dataBytes, pointers, bytes };
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The string in a Text's bytes, which must end with a NUL and be UTF-8. */
export function decodeText(bytes: Uint8Array): string {
  if (bytes.length === 0 || bytes[bytes.length - 1] !== 0) unreadable("a Text does not end with a NUL");
  try {
    return utf8.decode(bytes.subarray(0, -1));
  } catch {
    return unreadable(`a Text of ${bytes.length - 1} bytes is not UTF-8`);
  }
}
