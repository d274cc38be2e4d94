import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ProtocolError } from "../src/errors.js";
import { SendWindow } from "../src/session/credit.js";
import { Outbox } from "../src/session/outbox.js";
import { PeerSubscriptions } from "../src/session/subscriptions.js";
import { PeerTable } from "../src/session/table.js";

const A = 10n;
const B = 20n;

function setUp(): { outbox: Outbox; purges: () => number; tell: (change: object) => ReturnType<PeerSubscriptions["apply"]> } {
  const table = new PeerTable();
  table.add([A, B].map((typeId, i) => ({ wireId: i + 1, typeId, kind: "struct", name: "", layout: [] }) as const));
  const outbox = new Outbox(1000, () => null);
  let purges = 0;
  const purge = outbox.purge.bind(outbox);
  outbox.purge = (wanted) => {
    purges += 1;
    purge(wanted);
  };
  const peer = new PeerSubscriptions();
  const tell = (change: object): ReturnType<PeerSubscriptions["apply"]> => {
    const message = { sequence: peer.sequence + 1n, add: [], remove: [], all: false, ackWanted: false, ...change };
    return peer.apply(message, table, outbox);
  };
  return { outbox, purges: () => purges, tell };
}

function drain(outbox: Outbox): number[] {
  outbox.eventsWindow = new SendWindow(2n ** 64n - 1n);
  const marks: number[] = [];
  for (let frame = outbox.next(); frame !== null; frame = outbox.next()) marks.push(frame[0]!);
  return marks;
}

function event(outbox: Outbox, typeId: bigint, mark: number, bytes = 100): void {
  outbox.event(typeId, new Uint8Array(bytes).fill(mark), () => undefined);
}

describe("subscriptions of a peer", () => {
  it("say what changed: removed first, then added", () => {
    const { tell } = setUp();
    assert.deepEqual(tell({ add: [A, B, A] }), { added: [A, B], removed: [] });
    assert.deepEqual(tell({ remove: [A], add: [A] }), { added: [], removed: [] });
    assert.deepEqual(tell({ remove: [A, 99n] }), { added: [], removed: [A] });
  });

  it("keep their sequence, and need declared types", () => {
    const { tell } = setUp();
    assert.throws(() => tell({ sequence: 2n }), (error: ProtocolError) => error.code === "protocolError");
    assert.throws(() => tell({ add: [99n] }), (error: ProtocolError) => error.code === "unknownId");
  });

  it("drop what is queued of a type that is no longer wanted, also what waits for room", () => {
    const { tell, outbox } = setUp();
    tell({ add: [A, B] });
    for (let i = 0; i < 12; i += 1) event(outbox, i % 2 === 0 ? A : B, i);
    assert.ok(outbox.overfull);
    tell({ remove: [A] });
    assert.ok(!outbox.overfull);
    assert.deepEqual(drain(outbox), [1, 3, 5, 7, 9, 11]);
    assert.equal(outbox.queuedBytes, 0);
  });

  it("drop what all had let in when that ends", () => {
    const { tell, outbox } = setUp();
    tell({ add: [A], all: true });
    event(outbox, A, 1);
    event(outbox, B, 2);
    tell({});
    assert.deepEqual(drain(outbox), [1]);
  });

  it("do not look through a long queue for a type that is not in it: many small messages stay cheap", () => {
    const { tell, outbox, purges } = setUp();
    tell({ add: [A, B] });
    event(outbox, A, 1);
    for (let i = 0; i < 100; i += 1) tell(i % 2 === 0 ? { remove: [B] } : { add: [B] });
    assert.equal(purges(), 0);
    tell({ remove: [A] });
    assert.equal(purges(), 1);
    drain(outbox);
    tell({ add: [A] });
    tell({ remove: [A] });
    assert.equal(purges(), 1);
  });
});
