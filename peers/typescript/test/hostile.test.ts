/** Messages that no writer makes: reading them ends, soon, with an error at the worst. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { inspect } from "../src/capnp/inspect.js";
import { openMessage } from "../src/capnp/received.js";
import { ProtocolError, UnreadableError } from "../src/errors.js";
import { decodeControl } from "../src/wire/control.js";
import { FrameDecoder } from "../src/wire/frame.js";
import { loadVectors } from "../conformance/loading.js";
import { typeNamed } from "../conformance/plans.js";
import { readValue } from "../conformance/values.js";
import { randomFrom, seedOf } from "./support.js";

const root = fileURLToPath(new URL("../../../../tests/vectors/", import.meta.url));
/** What one message may cost to read, on a slow and busy machine. */
const MOST_MS = 2000;

function segmentsOf(message: Uint8Array): ArrayBuffer[] {
  const header = Buffer.alloc(16);
  header.writeUInt32LE(message.length + 12, 0);
  header.writeUInt16LE(1, 4);
  const { frame } = new FrameDecoder(2 ** 31, () => undefined).take(Buffer.concat([header, message]), 0);
  return [...frame!.segments];
}

/** Change a few bytes of the segments: single bits, whole bytes, or a pointer's worth of them. */
function spoil(segments: readonly ArrayBuffer[], random: (below: number) => number): void {
  for (let changes = 1 + random(4); changes > 0; changes -= 1) {
    const bytes = new Uint8Array(segments[random(segments.length)]!);
    if (bytes.length === 0) continue;
    const at = random(bytes.length);
    const how = random(4);
    if (how === 0) bytes[at]! ^= 1 << random(8);
    else if (how === 1) bytes[at] = random(256);
    else if (how === 2) bytes[at] = random(2) * 255;
    else bytes.copyWithin(at & ~7, random(bytes.length) & ~7, 8);
  }
}

function words(...values: (bigint | number)[]): ArrayBuffer {
  return new BigUint64Array(values.map(BigInt)).buffer;
}

/** A list pointer. */
function list(offset: number, code: number, count: number): bigint {
  return BigInt.asUintN(64, (BigInt(count) << 35n) | (BigInt(code) << 32n) | BigInt((offset << 2) | 1));
}

describe("spoiled messages", () => {
  const vectors = loadVectors(root, "messages").filter(({ facts, data }) => facts["schema"] !== "wire" && data.length < 10_000);

  it("of events are read, or throw an UnreadableError", { timeout: 120_000 }, () => {
    assert.ok(vectors.length > 50, "few vectors");
    const random = randomFrom(seedOf("events"));
    let unreadable = 0;
    // TEST_ROUNDS=1000000 searches longer.
    const rounds = Number(process.env["TEST_ROUNDS"] ?? 4000);
    for (let i = 0; i < rounds; i += 1) {
      const { name, facts, data } = vectors[random(vectors.length)]!;
      const type = facts["type"] as string;
      const segments = segmentsOf(data);
      spoil(segments, random);
      const bytes = Buffer.concat(segments.map((part) => Buffer.from(part.slice(0)))).toString("hex");
      const started = performance.now();
      try {
        readValue(type, openMessage(segments, typeNamed(type).struct));
      } catch (error) {
        assert.ok(error instanceof UnreadableError, `${name}, ${bytes}: ${error instanceof Error ? error.stack : error}`);
        unreadable += 1;
      }
      assert.ok(performance.now() - started < MOST_MS, `${name}, ${bytes}: took ${performance.now() - started} ms`);
    }
    assert.ok(unreadable > rounds / 50 && unreadable < rounds, `${unreadable} of ${rounds} were unreadable`);
  });

  it("of the session are read, or throw a ProtocolError", { timeout: 120_000 }, () => {
    const frames = loadVectors(root, "frames").filter(({ facts }) => facts["kind"] === "control");
    const random = randomFrom(seedOf("control messages"));
    let refused = 0;
    for (let i = 0; i < 4000; i += 1) {
      const { data } = frames[random(frames.length)]!;
      const { frame } = new FrameDecoder(2 ** 20, () => undefined).take(data, 0);
      spoil(frame!.segments, random);
      try {
        decodeControl(frame!.segments);
      } catch (error) {
        assert.ok(error instanceof ProtocolError, String(error));
        refused += 1;
      }
    }
    assert.ok(refused > 80 && refused < 4000, `${refused} of 4000 were refused`);
  });
});

describe("a message", () => {
  it("with one bad pointer can be read but for that field", () => {
    const type = typeNamed("Evolving");
    const segments = [words(0x0003_0001_0000_0000n, 7, list(1000, 2, 8), 0, 0)];
    const evolving = openMessage(segments, type.struct) as unknown as { number: number; text: string; inner: { label: string } };
    assert.equal(evolving.number, 7);
    assert.equal(evolving.inner.label, "inner default");
    assert.throws(() => evolving.text, UnreadableError);
    assert.throws(() => evolving.text, UnreadableError);
  });

  it("from an older writer keeps its bad pointers bad when capnp-es has moved them", () => {
    const type = typeNamed("Evolving");
    // One pointer of three: the root is replaced by a larger copy.
    const segments = [words(0x0001_0001_0000_0000n, 7, list(1000, 2, 8))];
    const evolving = openMessage(segments, type.struct) as unknown as { number: number; text: string };
    assert.equal(evolving.number, 7);
    assert.throws(() => evolving.text, UnreadableError);
  });

  it("whose lists claim elements without words costs no memory", () => {
    const most = 2 ** 29 - 1;
    const voids = inspect([words(0x0002_0000_0000_0000n, list(1, 0, most), list(0, 0, 5))])!;
    assert.deepEqual([...voids.keys()], [8]);
    // Structs of no words, half a billion of them, in a list of none.
    const structs = inspect([words(0x0001_0000_0000_0000n, list(0, 7, 0), BigInt((2 ** 29 - 1) * 4))])!;
    assert.equal(structs.size, 1);
  });

  it("that shares one object a thousand times has it once", () => {
    const count = 1000;
    const pointers = Array.from({ length: count }, (_, i) => list(count - 1 - i, 6, count));
    // Every element leads to the same list of pointers behind it, whose elements lead nowhere.
    const shared = [words(0x0001_0000_0000_0000n, list(0, 6, count), ...pointers, ...Array<bigint>(count).fill(0n))];
    assert.equal(inspect(shared)!.size, count - 1);
  });

  it("with more bad pointers than are worth noting is refused as a whole", () => {
    const bad = Array<bigint>(1001).fill(list(5000, 6, 1));
    assert.throws(() => inspect([words(0x0001_0000_0000_0000n, list(0, 6, bad.length), ...bad)]), UnreadableError);
  });

  it("that is nested deeper than 64 can be read down to there", () => {
    // Structs of one pointer, each behind the other.
    const nested = Array<bigint>(100).fill(0x0001_0000_0000_0000n);
    assert.deepEqual([...inspect([words(...nested, 0)])!.keys()], [65 * 8]);
    assert.equal(inspect([words(...nested.slice(0, 65), 0)]), null);
  });

  it("that contains itself ends", () => {
    // The root struct's only pointer leads to the root struct.
    const places = inspect([words(0x0001_0000_0000_0000n, BigInt.asUintN(32, -8n) | 0x0001_0000_0000_0000n)])!;
    assert.deepEqual([...places.keys()], [8]);
  });
});
