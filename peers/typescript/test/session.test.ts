/** What a session does when time passes, by a clock of the test's own. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { buildMessage } from "../src/capnp/build.js";
import type { Owner, SessionSettings } from "../src/session/owner.js";
import { Session } from "../src/session/session.js";
import { OwnTable } from "../src/session/table.js";
import type { EventType } from "../src/types.js";
import { type Control, decodeControl, encodeControl } from "../src/wire/control.js";
import { encodeFrame, EVENT, FrameDecoder, REQUEST } from "../src/wire/frame.js";
import { types } from "../conformance/plans.js";
import { helloOf } from "./support.js";

const Ask: EventType = types["Ask"]!;
const Count: EventType = types["Count"]!;
const Late: EventType = types["Late"]!;

/** A session that is up, with a peer that is this test. */
class Side {
  now = 0;
  readonly session: Session;
  /** Control messages that it sent since they were looked at. */
  #said: Control[] = [];
  readonly #decoder = new FrameDecoder(2 ** 31, () => undefined);
  #number = 0n;

  constructor(settings: Partial<SessionSettings> = {}) {
    const all: SessionSettings = {
      role: "acceptor",
      name: "a",
      instance: Buffer.alloc(16, 1),
      implementation: "test",
      version: "1",
      expected: null,
      frameLimit: 2 ** 20,
      // No multiple of 8, as frames are: one frame takes the balance below 0, not to it.
      eventCredit: 1004n,
      requestCredit: 1004n,
      keepaliveMs: 0,
      keepaliveMisses: 3,
      handshakeMs: 10_000,
      ackMs: 30_000,
      goodbyeMs: 2000,
      queueBytes: 1000,
      ...settings,
    };
    const known = new Map([Ask, Count, Late].map((type) => [type.typeId, type]));
    const owner: Owner = {
      typeOf: (typeId) => known.get(typeId),
      subscribes: (typeId) => typeId === Count.typeId,
      serves: (typeId) => typeId === Ask.typeId,
      hello: () => undefined,
      up: () => undefined,
      peerSubscriptions: () => undefined,
      acknowledged: () => undefined,
      event: () => undefined,
      request: () => undefined,
      disabled: () => undefined,
      ended: () => undefined,
    };
    this.session = new Session(all, owner, new OwnTable(), known.values(), this.now);
    const row = (type: EventType, wireId: number): object => ({ ...type.row, wireId });
    this.receive(helloOf("b", { types: [row(Count, 1), row(Ask, 2)] as never }));
    this.session.accept([Count], false, this.now);
    this.receive({ is: "subscriptions", sequence: 1n, add: [], remove: [], all: false, ackWanted: false });
    this.said();
  }

  receive(...messages: Control[]): void {
    for (const message of messages) this.session.receive(Buffer.from(encodeControl(message)), this.now);
  }

  /** The peer sends content; its size. */
  content(type: EventType): number {
    const { segments, size } = buildMessage(type.struct, () => undefined);
    if (type === Ask) this.#number += 1n;
    const frame = type === Ask ? encodeFrame(2, REQUEST, this.#number, segments) : encodeFrame(1, EVENT, 0n, segments);
    this.session.receive(Buffer.from(frame), this.now);
    return size;
  }

  said(): Control[] {
    for (let frame = this.session.next(); frame !== null; frame = this.session.next()) {
      const taken = this.#decoder.take(frame, 0).frame!;
      if (taken.kind === "control") this.#said.push(decodeControl(taken.segments));
    }
    return this.#said.splice(0);
  }

  /** Time passes, and with it every deadline. */
  pass(ms: number): void {
    const end = this.now + ms;
    for (let next = this.session.deadline; next !== null && next <= end && this.session.end === null; next = this.session.deadline) {
      assert.ok(next > this.now, `a deadline at ${next} that was not acted on at ${this.now}`);
      this.now = next;
      this.session.tick(this.now);
    }
    this.now = end;
  }
}

describe("a sender that may send nothing", () => {
  const kinds = [
    ["event", Count, (side: Side, size: number) => side.session.eventTaken(size)],
    ["request", Ask, (side: Side, size: number) => side.session.requestTaken(size)],
  ] as const;
  for (const [kind, type, taken] of kinds) {
    it(`gets the credit of an ${kind} within a second, however little`, () => {
      const side = new Side();
      side.receive({ is: "subscriptionsAck", sequence: 1n });
      let size = side.content(type);
      let balance = 1004 - size;
      for (; balance > 0; balance -= size) size = side.content(type);
      assert.equal(side.session.end, null);
      taken(side, 1);
      assert.deepEqual(side.said(), [], "it was told at once");
      side.pass(1000);
      const told = (n: bigint): object => ({ is: "credit", events: kind === "event" ? n : 0n, requests: kind === "event" ? 0n : n });
      assert.deepEqual(side.said(), [told(1n)]);
      // Nothing is owed for a while: that is no reason to look no more.
      side.pass(10_000);
      assert.deepEqual(side.said(), []);
      const rest = 8 - balance;
      taken(side, rest);
      side.pass(1000);
      assert.deepEqual(side.said(), [told(BigInt(rest))]);
      // Now it may send again: the rest waits for half of the window.
      taken(side, 8);
      side.pass(60_000);
      assert.deepEqual(side.said(), []);
      assert.equal(side.session.deadline, null);
    });
  }
});

describe("a peer that owes an acknowledgement", () => {
  it("is given up after 30 s", () => {
    const side = new Side();
    side.receive({ is: "subscriptionsAck", sequence: 1n });
    side.pass(100_000);
    side.session.subscribe([Late], [], false, side.now);
    side.pass(20_000);
    // The first of the two is the one that is late.
    side.session.subscribe([], [Late], false, side.now);
    side.pass(9_999);
    assert.equal(side.session.end, null);
    side.pass(1);
    const { code, byPeer, text } = side.session.end!;
    assert.deepEqual([code, byPeer], ["protocolError", false]);
    assert.match(text, /not acknowledged within 30000 ms/);
    assert.equal(side.said().at(-1)!.is, "goodbye");
  });

  it("also the first one, and has its time again for what is left", () => {
    const side = new Side();
    side.session.subscribe([Late], [], false, side.now);
    side.pass(29_000);
    side.receive({ is: "subscriptionsAck", sequence: 1n });
    side.pass(29_000);
    assert.equal(side.session.end, null);
    side.receive({ is: "subscriptionsAck", sequence: 2n });
    assert.equal(side.session.deadline, null);
    const silent = new Side();
    silent.pass(30_000);
    assert.equal(silent.session.end!.code, "protocolError");
  });
});
