/** Frames: docs/wire.md section 2. A decoder takes bytes as they come and gives whole frames. */

import { ProtocolError } from "../errors.js";
import { CONTROL_LIMIT, HEADER_BYTES, MAX_SEGMENTS, MIN_DATA_LENGTH } from "./limits.js";

export const EVENT = 0;
export const REQUEST = 1;
export const RESPONSE = 2;

export interface FrameHeader {
  readonly kind: "control" | "event" | "request" | "response";
  /** DATA_LENGTH + 4: all bytes of the frame. */
  readonly size: number;
  readonly wireId: number;
  readonly correlation: bigint;
}

export interface Frame extends FrameHeader {
  /** Each in a buffer of its own: capnp-es reads a segment only from the first byte of an ArrayBuffer. */
  readonly segments: readonly ArrayBuffer[];
}

/** One segment of a message to be written: the first bytes of a buffer. */
export interface Piece {
  readonly buffer: ArrayBuffer;
  readonly byteLength: number;
}

export function tableBytes(segments: number): number {
  return 8 * (Math.floor(segments / 2) + 1);
}

/** Frame size of a message of these segments. */
export function frameSize(segments: readonly Piece[]): number {
  return segments.reduce((sum, piece) => sum + piece.byteLength, HEADER_BYTES + tableBytes(segments.length));
}

/** Put the 16 bytes and the segment table before the segments; copies these once. */
export function encodeFrame(wireId: number, flags: number, correlation: bigint, segments: readonly Piece[]): Uint8Array {
  const size = frameSize(segments);
  const frame = Buffer.allocUnsafe(size);
  frame.writeUInt32LE(size - 4, 0);
  frame.writeUInt16LE(wireId, 4);
  frame.writeUInt16LE(flags, 6);
  frame.writeBigUInt64LE(correlation, 8);
  frame.writeUInt32LE(segments.length - 1, HEADER_BYTES);
  let at = HEADER_BYTES + 4;
  for (const piece of segments) at = frame.writeUInt32LE(piece.byteLength / 8, at);
  if (segments.length % 2 === 0) at = frame.writeUInt32LE(0, at);
  for (const piece of segments) {
    frame.set(new Uint8Array(piece.buffer, 0, piece.byteLength), at);
    at += piece.byteLength;
  }
  return frame;
}

/** The first bytes of a stranger, for a message to people. */
function show(bytes: Uint8Array): string {
  const text = Array.from(bytes, (byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
  return `${Buffer.from(bytes).toString("hex")} ("${text}")`;
}

function refuse(text: string): never {
  throw new ProtocolError("protocolError", text);
}

const KINDS = ["event", "request", "response"] as const;

/**
 * Takes bytes, gives frames. Memory for a frame is taken when its header and its segment table have passed every
 * check, and its segments are filled as bytes arrive: each byte is copied once, out of the socket's chunk.
 */
export class FrameDecoder {
  readonly #head = Buffer.alloc(HEADER_BYTES + 4 + MAX_SEGMENTS * 4 + 4);
  #headFill = 0;
  /** How much of the head is wanted before it can be judged further: 4, 16, 20, or all of it with the table. */
  #headGoal = 4;
  #header: FrameHeader | null = null;
  #segments: Uint8Array[] = [];
  #segment = 0;
  #segmentFill = 0;
  #first = true;

  /**
   * @param frameLimit Largest frame size of content, bytes.
   * @param admit Called with each header before memory is taken; throws what ends the connection.
   */
  constructor(
    private readonly frameLimit: number,
    private readonly admit: (header: FrameHeader) => void,
  ) {}

  /** Nothing of an unfinished frame is held. */
  get idle(): boolean {
    return this.#headFill === 0;
  }

  /**
   * Read from `chunk` at `from` until a frame is whole or the chunk ends.
   * @returns the frame, if one is whole, and where it ends in the chunk.
   */
  take(chunk: Uint8Array, from: number): { frame: Frame | null; end: number } {
    let at = from;
    while (this.#segments.length === 0) {
      if (at === chunk.length) return { frame: null, end: at };
      const count = Math.min(this.#headGoal - this.#headFill, chunk.length - at);
      this.#head.set(chunk.subarray(at, at + count), this.#headFill);
      this.#headFill += count;
      at += count;
      if (this.#headFill === this.#headGoal) this.#judge();
    }
    while (this.#segment < this.#segments.length) {
      const segment = this.#segments[this.#segment]!;
      const count = Math.min(segment.length - this.#segmentFill, chunk.length - at);
      segment.set(chunk.subarray(at, at + count), this.#segmentFill);
      this.#segmentFill += count;
      at += count;
      if (this.#segmentFill < segment.length) return { frame: null, end: at };
      this.#segment += 1;
      this.#segmentFill = 0;
    }
    const frame = { ...this.#header!, segments: this.#segments.map((segment) => segment.buffer as ArrayBuffer) };
    this.#segments = [];
    this.#segment = 0;
    this.#headFill = 0;
    this.#headGoal = 4;
    this.#first = false;
    return { frame, end: at };
  }

  #judge(): void {
    if (this.#headGoal === 4) {
      this.#judgeLength();
      this.#headGoal = HEADER_BYTES;
    } else if (this.#headGoal === HEADER_BYTES) {
      this.#header = this.#judgeHeader();
      this.admit(this.#header);
      this.#headGoal = HEADER_BYTES + 4;
    } else if (this.#headGoal === HEADER_BYTES + 4) {
      this.#headGoal = HEADER_BYTES + this.#judgeTableSize();
      if (this.#headGoal === this.#headFill) this.#judgeTable();
    } else {
      this.#judgeTable();
    }
  }

  #judgeLength(): void {
    const length = this.#head.readUInt32LE(0);
    const stranger = this.#first ? `; is it a peer at all? It began with ${show(this.#head.subarray(0, 4))}` : "";
    if (length % 8 !== 4 || length < MIN_DATA_LENGTH) {
      refuse(`DATA_LENGTH is ${length}; it must be 4 modulo 8, and at least ${MIN_DATA_LENGTH}${stranger}`);
    }
    const limit = Math.max(CONTROL_LIMIT, this.frameLimit);
    if (length + 4 > limit) {
      throw new ProtocolError("frameTooLarge", `a frame of ${length + 4} bytes; the limit is ${limit}${stranger}`);
    }
  }

  #judgeHeader(): FrameHeader {
    const size = this.#head.readUInt32LE(0) + 4;
    const wireId = this.#head.readUInt16LE(4);
    const flags = this.#head.readUInt16LE(6);
    const correlation = this.#head.readBigUInt64LE(8);
    const kind = wireId === 0 ? (flags === EVENT ? "control" : undefined) : KINDS[flags];
    if (kind === undefined || (correlation === 0n) !== (flags === EVENT)) {
      refuse(`no kind of frame has EVENT_ID ${wireId}, FLAGS ${flags} and CORRELATION ${correlation}`);
    }
    const limit = kind === "control" ? CONTROL_LIMIT : this.frameLimit;
    if (size > limit) {
      throw new ProtocolError("frameTooLarge", `a frame of ${size} bytes (${kind}); the limit is ${limit}`);
    }
    return { kind, size, wireId, correlation };
  }

  #judgeTableSize(): number {
    const count = this.#head.readUInt32LE(HEADER_BYTES) + 1;
    if (count > MAX_SEGMENTS) refuse(`a message of ${count} segments; the limit is ${MAX_SEGMENTS}`);
    const bytes = tableBytes(count);
    if (HEADER_BYTES + bytes > this.#header!.size) {
      refuse(`a table of ${count} segments does not fit into a frame of ${this.#header!.size} bytes`);
    }
    return bytes;
  }

  #judgeTable(): void {
    const { size } = this.#header!;
    const count = this.#head.readUInt32LE(HEADER_BYTES) + 1;
    const sizes = Array.from({ length: count }, (_, i) => this.#head.readUInt32LE(HEADER_BYTES + 4 + i * 4) * 8);
    if (count % 2 === 0 && this.#head.readUInt32LE(HEADER_BYTES + 4 + count * 4) !== 0) {
      refuse("the padding of the segment table is not zero");
    }
    if (sizes[0] === 0) refuse("segment 0 has no words");
    const total = sizes.reduce((sum, bytes) => sum + bytes, HEADER_BYTES + tableBytes(count));
    if (total !== size) refuse(`table and segments make ${total} bytes, the frame has ${size}`);
    this.#segments = sizes.map((bytes) => new Uint8Array(bytes));
  }
}
