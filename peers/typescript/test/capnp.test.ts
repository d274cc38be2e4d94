/** What this package adds to capnp-es: each of these fails with capnp-es alone. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { utils } from "capnp-es";
import * as capnp from "../src/capnp.js";
import { buildMessage } from "../src/capnp/build.js";
import { openMessage, type ReceivedMessage } from "../src/capnp/received.js";
import { UnreadableError } from "../src/errors.js";
import * as wire from "../generated/wire.js";
import { Forms, OldForms } from "../generated/forms.js";
import * as schema from "../generated/conformance.js";

function sent<T extends capnp.Struct>(type: capnp.StructCtor<T>, fill: (root: T) => void): ArrayBuffer[] {
  return buildMessage(type, fill).segments.map(({ buffer, byteLength }) => buffer.slice(0, byteLength));
}

function received(fill: (root: Forms) => void): Forms {
  return openMessage(sent(Forms, fill), Forms);
}

describe("texts", () => {
  it("keep a byte order mark", () => {
    assert.equal(received((root) => (root.text = "\ufeffx")).text, "\ufeffx");
  });

  it("that were set to nothing are no default", () => {
    assert.equal(received((root) => (root.text = "")).text, "");
    assert.equal(received(() => undefined).text, "ab");
  });

  for (const [what, bytes] of [
    ["without a NUL", [0x61, 0x62]],
    ["that are not UTF-8", [0xff, 0]],
    ["of no bytes", []],
  ] as const) {
    it(`${what} are refused, also in a list`, () => {
      const root = received((root) => {
        capnp.initAnyList(utils.getPointer(4, root), capnp.Uint8List, bytes.length);
        bytes.forEach((byte, i) => capnp.asData(utils.getPointer(4, root)).set(i, byte));
      });
      assert.throws(() => root.text, UnreadableError);
      const hello = openMessage(
        sent(wire.Hello, (root) => {
          const pointer = root._initFeatures(1) as unknown as capnp.Pointer;
          const element = utils.getContent(pointer);
          const list = capnp.initAnyList(element, capnp.Uint8List, bytes.length);
          bytes.forEach((byte, i) => list.set(i, byte));
        }),
        wire.Hello,
      );
      assert.throws(() => hello.features.get(0), UnreadableError);
    });
  }
});

it("a text that is a list of larger numbers is refused, as Cap'n Proto has it", () => {
  const root = received((root) => void capnp.initAnyList(utils.getPointer(4, root), capnp.Uint16List, 4));
  assert.throws(() => root.text, /a list of 2 bytes where one of 1 byte belongs/);
});

describe("lists", () => {
  it("of Void are written as such, and read", () => {
    const { size } = buildMessage(Forms, (root) => void root._initNothings(1000));
    assert.ok(size < 200, `${size} bytes for nothing`);
    const { nothings } = received((root) => void root._initNothings(1000));
    assert.equal(nothings.length, 1000);
    assert.deepEqual(nothings.toArray().slice(0, 2), [null, null]);
  });

  it("of another kind are refused", () => {
    const root = received((root) => void capnp.initAnyList(utils.getPointer(2, root), capnp.Uint8List, 16));
    assert.throws(() => root.floats, /a list of 1 byte where one of 8 bytes belongs/);
    const other = received((root) => void root._initPart());
    assert.throws(() => capnp.asList(utils.getPointer(5, other), capnp.Uint16List), /a struct where a list belongs/);
  });

  it("of an older writer's structs are read, field by field", () => {
    const segments = sent(OldForms, (root) => {
      const parts = root._initParts(2);
      parts.get(0).number = 1n;
      parts.get(0).text = "one";
      parts.get(1).number = 2n;
    });
    const parts = openMessage(segments, Forms).parts.toArray();
    assert.deepEqual(parts.map(({ number, text, more }) => [number, text, more]), [[1n, "one", 0n], [2n, "", 0n]]);
  });

  it("may be long when they are built", () => {
    const length = 1_100_000;
    const { segments } = buildMessage(Forms, (root) => {
      const { message } = root.segment;
      // As if eight times as many had been set before.
      assert.equal(message._capnp.traversalLimit, Number.POSITIVE_INFINITY);
      const floats = root._initFloats(length);
      floats.set(length - 1, 1.5);
    });
    const root = openMessage(segments.map(({ buffer, byteLength }) => buffer.slice(0, byteLength)), Forms);
    assert.equal(root.floats.get(length - 1), 1.5);
  });
});

describe("defaults", () => {
  it("of an Int32 are whole", () => {
    assert.equal(received(() => undefined).number, 100_000);
    assert.equal(received((root) => (root.number = -5)).number, -5);
  });

  it("of a list can be read for ever", () => {
    const byDefault = (Forms._capnp as unknown as { defaultBytes: capnp.Pointer }).defaultBytes;
    assert.equal(byDefault.segment.message._capnp.traversalLimit, Number.POSITIVE_INFINITY);
    assert.deepEqual(received(() => undefined).bytes.toArray(), [1, 2, 3]);
  });
});

describe("reading", () => {
  it("is in place: Data shows the bytes that were received", () => {
    const segments = sent(Forms, (root) => root._initData(5).copyBuffer(Buffer.from("12345")));
    const { data } = openMessage(segments, Forms);
    assert.equal(data.toUint8Array().buffer, segments[0]);
  });

  it("of many null pointers takes little memory", () => {
    const segments = sent(schema.Everything, (root) => {
      for (let i = 0, inners = root._initInners(500); i < 500; i += 1) inners.get(i).number = i;
    });
    const { inners } = openMessage(segments, schema.Everything);
    for (const inner of inners.toArray()) assert.equal(inner.more.length, 0);
    const message = inners.segment.message as ReceivedMessage;
    const bytes = message._capnp.segments.reduce((sum, { buffer }) => sum + buffer.byteLength, 0);
    assert.ok(bytes < segments[0]!.byteLength + 16_384, `${bytes} bytes`);
  });

  it("of null structs and defaults puts all of them into one new segment", () => {
    const root = openMessage(sent(schema.Everything, () => undefined), schema.Everything);
    assert.equal(root.inner.number + root.place.inner.number + root.innerDefault.number, 5);
    assert.deepEqual([...root.dataDefault.toUint8Array(), ...root.u8sDefault.toArray()], [1, 2, 3, 1, 2, 3]);
    assert.equal(root.segment.message._capnp.segments.length, 2);
  });

  it("can go on for ever", () => {
    const root = received((root) => (root.text = "x"));
    assert.equal(root.segment.message._capnp.traversalLimit, Number.POSITIVE_INFINITY);
  });
});
