import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ProtocolError } from "../src/errors.js";
import { encodeFrame, EVENT, type Frame, FrameDecoder, REQUEST, RESPONSE } from "../src/wire/frame.js";
import { randomFrom, seedOf } from "./support.js";

function segment(words: number, fill: number): { buffer: ArrayBuffer; byteLength: number } {
  return { buffer: new Uint8Array(words * 8).fill(fill).buffer, byteLength: words * 8 };
}

/** Three frames, of one, two and three segments. */
const FRAMES = [
  encodeFrame(1, EVENT, 0n, [segment(1, 1)]),
  encodeFrame(2, REQUEST, 7n, [segment(1, 2), segment(0, 0)]),
  encodeFrame(3, RESPONSE, 2n ** 64n - 1n, [segment(2, 3), segment(0, 0), segment(40, 4)]),
];
const BYTES = Buffer.concat(FRAMES);

function decode(pieces: Iterable<Uint8Array>, limit = 1_048_576): Frame[] {
  const decoder = new FrameDecoder(limit, () => undefined);
  const frames: Frame[] = [];
  for (const piece of pieces) {
    for (let at = 0; at < piece.length; ) {
      const { frame, end } = decoder.take(piece, at);
      at = end;
      if (frame !== null) frames.push(frame);
    }
  }
  assert.ok(decoder.idle, "a frame is left unfinished");
  return frames;
}

function* cut(bytes: Uint8Array, length: () => number): Iterable<Uint8Array> {
  for (let at = 0; at < bytes.length; ) {
    const end = at + length();
    yield bytes.subarray(at, end);
    at = end;
  }
}

describe("FrameDecoder", () => {
  it("gives what was encoded", () => {
    const [one, two, three] = decode([BYTES]);
    assert.deepEqual(
      [one, two, three].map((frame) => [frame!.kind, frame!.wireId, frame!.correlation, frame!.size]),
      [["event", 1, 0n, 32], ["request", 2, 7n, 40], ["response", 3, 2n ** 64n - 1n, 16 + 16 + 42 * 8]],
    );
    assert.deepEqual(three!.segments.map((part) => [...new Uint8Array(part)]), [
      Array<number>(16).fill(3),
      [],
      Array<number>(320).fill(4),
    ]);
  });

  it("gives the same whatever the pieces are", () => {
    const whole = decode([BYTES]);
    for (let length = 1; length <= 50; length += 1) assert.deepEqual(decode(cut(BYTES, () => length)), whole, `${length}`);
    const random = randomFrom(seedOf("pieces"));
    for (let i = 0; i < 200; i += 1) assert.deepEqual(decode(cut(BYTES, () => 1 + random(60))), whole);
  });

  it("keeps nothing of the chunk: a segment is its own memory, from its first byte on", () => {
    const chunk = Buffer.from(FRAMES[0]!);
    const [frame] = decode([chunk]);
    chunk.fill(0xff);
    assert.equal(frame!.segments[0]!.byteLength, 8);
    assert.deepEqual([...new Uint8Array(frame!.segments[0]!)], Array<number>(8).fill(1));
  });

  it("asks before it takes memory, and knows the length after four bytes", () => {
    const header = Buffer.alloc(16);
    header.writeUInt32LE(2 ** 30 - 4, 0);
    const decoder = new FrameDecoder(2 ** 20, () => assert.fail("the header was looked at"));
    assert.throws(() => decoder.take(header.subarray(0, 4), 0), (error: ProtocolError) => error.code === "frameTooLarge");
    const asked: number[] = [];
    const asking = new FrameDecoder(2 ** 30, ({ size }) => {
      asked.push(size);
      throw new ProtocolError("creditExceeded", "no");
    });
    header.writeUInt16LE(1, 4);
    assert.throws(() => asking.take(header, 0), (error: ProtocolError) => error.code === "creditExceeded");
    assert.deepEqual(asked, [2 ** 30]);
  });

  it("shows the first bytes of a stranger", () => {
    assert.throws(() => decode([Buffer.from("GET / HTTP/1.1\r\n")]), /47455420 \("GET "\)/);
  });
});
