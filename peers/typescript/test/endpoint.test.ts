/** Two endpoints on a Unix socket. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Struct } from "capnp-es";
import {
  NoResponder,
  PeerError,
  RequestFailed,
  RequestLost,
  RequestTimeout,
  type ReceivedEvent,
  type Subscription,
} from "../src/index.js";
import { buildMessage } from "../src/capnp/build.js";
import { encodeFrame, REQUEST } from "../src/wire/frame.js";
import * as schema from "../generated/conformance.js";
import { Answer, Ask, Blob, Count, Evolving, Late } from "../conformance/plans.js";
import { helloOf, pair, RawPeer, settle, socketPath, until, type Watched, watched } from "./support.js";

/** A frame with a Count: header, segment table, root pointer, one word. */
const COUNT_BYTES = 40;
const TIMEOUT = { timeout: 20_000 };

async function take<T extends Struct>(stream: Subscription<T>): Promise<ReceivedEvent<T>> {
  const { value } = await stream.next();
  assert.ok(value, "the stream has ended");
  return value;
}

describe("events", TIMEOUT, () => {
  it("arrive in order, with the name of their sender, read in the bytes that came", async () => {
    const { a, b } = await pair();
    const counts = a.endpoint.subscribe(Count);
    await counts.acknowledged();
    for (let i = 0n; i < 1000n; i += 1n) await b.endpoint.broadcast(Count, (count) => (count.number = i));
    let wanted = 0n;
    for await (const event of counts) {
      assert.equal(event.body.number, wanted);
      assert.equal(event.peer, "b");
      if ((wanted += 1n) === 1000n) break;
    }
  });

  it("go to nobody who does not subscribe, and to nobody any more after an acknowledged close", async () => {
    const { a, b } = await pair();
    const counts = a.endpoint.subscribe(Count);
    await counts.acknowledged();
    await b.endpoint.broadcast(Evolving, (event) => (event.number = 1));
    counts.close();
    await counts.acknowledged();
    await b.endpoint.broadcast(Count, (count) => (count.number = 1n));
    assert.equal(b.endpoint.status("a")!.sentEvents, 0);
    assert.equal((await counts.next()).done, true);
  });

  it("of a type that was declared late are known to the other side", async () => {
    const { a, b } = await pair();
    const lates = a.endpoint.subscribe(Late);
    await lates.acknowledged();
    await b.endpoint.broadcast(Late, (late) => (late.text = "better"));
    assert.equal((await take(lates)).body.text, "better");
  });

  it("reach two subscriptions, and give their credit back when the second has them", async () => {
    const { a, b } = await pair({ eventCredit: BigInt(COUNT_BYTES) });
    const first = a.endpoint.subscribe(Count);
    const second = a.endpoint.subscribe(Count);
    await second.acknowledged();
    await b.endpoint.broadcast(Count, (count) => (count.number = 1n));
    await b.endpoint.broadcast(Count, (count) => (count.number = 2n));
    await take(first);
    await settle();
    assert.equal(b.endpoint.status("a")!.waitingForCredit, true);
    await take(second);
    assert.equal((await take(first)).body.number, 2n);
  });

  it("that nobody fetched give their credit back when the subscription is closed", async () => {
    const { a, b } = await pair({ eventCredit: BigInt(COUNT_BYTES) });
    const first = a.endpoint.subscribe(Count);
    await first.acknowledged();
    await b.endpoint.broadcast(Count, (count) => (count.number = 1n));
    await until("it waits", () => first.waiting === 1);
    const second = a.endpoint.subscribe(Count);
    first.close();
    await b.endpoint.broadcast(Count, (count) => (count.number = 2n));
    assert.equal((await take(second)).body.number, 2n);
  });

  it("wait for credit while a subscription pauses, and none is lost", async () => {
    const { a, b } = await pair({ eventCredit: BigInt(COUNT_BYTES * 100) }, { queueBytes: 1 << 20 });
    const counts = a.endpoint.subscribe(Count);
    await counts.acknowledged();
    const reading = counts.next();
    counts.pause();
    const sending = (async () => {
      for (let i = 0n; i < 20_000n; i += 1n) await b.endpoint.broadcast(Count, (count) => (count.number = i));
    })();
    await until("credit is used up", () => b.endpoint.status("a")!.waitingForCredit);
    await settle();
    assert.equal(b.endpoint.status("a")!.sentEvents, 100);
    assert.equal(counts.waiting, 100);
    counts.resume();
    assert.equal((await reading).value!.body.number, 0n);
    for (let i = 1n; i < 20_000n; i += 1n) assert.equal((await take(counts)).body.number, i);
    await sending;
  });

  it("larger than the window, and of a megabyte, pass", async () => {
    const { a, b } = await pair({ eventCredit: 1000n });
    const blobs = a.endpoint.subscribe(Blob);
    await blobs.acknowledged();
    const bytes = Buffer.alloc(1_048_576, "lahja ");
    for (let id = 0; id < 3; id += 1) {
      await b.endpoint.broadcast(Blob, (blob) => {
        blob.id = id;
        blob._initData(bytes.length).copyBuffer(bytes);
      });
    }
    for (let id = 0; id < 3; id += 1) {
      const { body } = await take(blobs);
      assert.equal(body.id, id);
      assert.equal(Buffer.compare(body.data.toUint8Array(), bytes), 0);
    }
  });

  it("over the frame limit of every receiver are refused to the sender alone", async () => {
    const { a, b } = await pair({ frameLimit: 1024 });
    const blobs = a.endpoint.subscribe(Blob);
    await blobs.acknowledged();
    await assert.rejects(
      b.endpoint.broadcast(Blob, (blob) => void blob._initData(2000)),
      (error: PeerError) => error instanceof PeerError && error.message.includes("a: 1024"),
    );
    await b.endpoint.broadcast(Blob, (blob) => (blob.id = 5));
    assert.equal((await take(blobs)).body.id, 5);
  });

  it("over the frame limit of one receiver reach the others, and the sender is told", async () => {
    const { a, b, path } = await pair({ frameLimit: 1024 });
    const c = watched("c");
    await c.endpoint.listen(`${path}2`);
    await b.endpoint.connect(`${path}2`, "c");
    const [small, large] = [a.endpoint.subscribe(Blob), c.endpoint.subscribe(Blob)];
    await Promise.all([small.acknowledged(), large.acknowledged()]);
    await b.endpoint.broadcast(Blob, (blob) => void blob._initData(2000));
    assert.equal((await take(large)).body.data.length, 2000);
    const told = b.changes.flatMap((change) => (change.is === "tooLarge" ? [[change.peer, change.limit]] : []));
    assert.deepEqual(told, [["a", 1024]]);
    assert.equal(small.waiting, 0);
  });

  it("of several types come out of one subscription", async () => {
    const { a, b } = await pair();
    const both = a.endpoint.subscribe<schema.Count | schema.Late>(Count, Late);
    await both.acknowledged();
    await b.endpoint.broadcast(Late, (late) => (late.text = "one"));
    await b.endpoint.broadcast(Count, (count) => (count.number = 2n));
    const first = (await take(both)).body;
    const second = (await take(both)).body;
    assert.ok(first instanceof schema.Late && second instanceof schema.Count);
    assert.deepEqual([first.text, second.number], ["one", 2n]);
  });
});

describe("a full queue", TIMEOUT, () => {
  it("makes a broadcast wait, and memory stays bounded", async () => {
    const { a, b } = await pair({ eventCredit: 100_000n }, { queueBytes: 200_000 });
    const blobs = a.endpoint.subscribe(Blob);
    blobs.pause();
    await blobs.acknowledged();
    let sent = 0;
    const sending = (async () => {
      for (; sent < 100; sent += 1) await b.endpoint.broadcast(Blob, (blob) => void blob._initData(10_000));
    })();
    await until("the queue is full", () => b.endpoint.status("a")!.queuedEvents > 20);
    await settle();
    // 10 under way, 20 in the queue, 1 that waits for room.
    assert.ok(sent >= 29 && sent <= 32, `${sent} were queued`);
    blobs.resume();
    for (let i = 0; i < 100; i += 1) await take(blobs);
    await sending;
  });

  it("of a peer that takes nothing ends its connection, and frees the broadcast", async () => {
    const path = socketPath();
    const { endpoint, changes } = watched("a", { queueBytes: 100_000, tooSlowMs: 200 });
    await endpoint.listen(path);
    const raw = await RawPeer.connect(path);
    raw.greet("slow", { eventCredit: 1000n });
    await until("up", () => endpoint.peers.includes("slow"));
    for (let i = 0; i < 50; i += 1) await endpoint.broadcast(Blob, (blob) => void blob._initData(10_000));
    assert.equal((await raw.hears("goodbye")).code, "tooSlow");
    assert.ok(changes.some((change) => change.is === "down" && change.code === "tooSlow" && !change.byPeer));
  });

  it("of a peer that does not read its socket ends it, too", async () => {
    const path = socketPath();
    const { endpoint, changes } = watched("a", { queueBytes: 100_000, tooSlowMs: 200 });
    await endpoint.listen(path);
    const raw = await RawPeer.connect(path);
    raw.greet("deaf");
    await until("up", () => endpoint.peers.includes("deaf"));
    raw.socket.pause();
    for (let i = 0; i < 200; i += 1) await endpoint.broadcast(Blob, (blob) => void blob._initData(10_000));
    await until("down", () => changes.some((change) => change.is === "down" && change.code === "tooSlow"));
  });

  /** An endpoint whose queue for a peer without credit is full, and a broadcast that waits for room in it. */
  async function full(tooSlowMs: number): Promise<{ a: Watched; raw: RawPeer; sending: Promise<void>; sent: () => boolean }> {
    const path = socketPath();
    const a = watched("a", { queueBytes: 1000, tooSlowMs });
    await a.endpoint.listen(path);
    const raw = await RawPeer.connect(path);
    raw.greet("full", { eventCredit: 1n });
    await until("up", () => a.endpoint.peers.includes("full"));
    let sent = false;
    const sending = (async () => {
      for (let i = 0; i < 3; i += 1) await a.endpoint.broadcast(Blob, (blob) => void blob._initData(1000));
      sent = true;
    })();
    return { a, raw, sending, sent: () => sent };
  }

  it("is not too slow while credit comes back, however little", async () => {
    const { a, raw, sending, sent } = await full(500);
    for (let i = 0; i < 20; i += 1) {
      raw.send({ is: "credit", events: 1n, requests: 0n });
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.ok(!sent());
    assert.deepEqual(a.endpoint.peers, ["full"]);
    raw.send({ is: "credit", events: 10_000n, requests: 0n });
    await sending;
  });

  it("is too slow if it takes no event, whatever else it does", async () => {
    const { raw, sending } = await full(200);
    const asking = setInterval(() => raw.send({ is: "ping" }, { is: "credit", events: 0n, requests: 1n }), 10);
    try {
      assert.equal((await raw.hears("goodbye")).code, "tooSlow");
    } finally {
      // It would keep the process.
      clearInterval(asking);
    }
    await sending;
  });

  it("of a large event to a peer that reads slowly is not taken for one to a peer that reads nothing", async () => {
    const path = socketPath();
    const { endpoint, changes } = watched("a", { queueBytes: 1 << 20, tooSlowMs: 500 });
    await endpoint.listen(path);
    const raw = await RawPeer.connect(path);
    raw.greet("slow", { frameLimit: 2 ** 30 });
    await until("up", () => endpoint.peers.includes("slow"));
    // Chunks of 64 KiB: 4 MiB take about two seconds.
    raw.socket.on("data", () => {
      raw.socket.pause();
      setTimeout(() => raw.socket.resume(), 30);
    });
    for (let i = 0; i < 3; i += 1) await endpoint.broadcast(Blob, (blob) => void blob._initData(4 << 20));
    assert.deepEqual(endpoint.peers, ["slow"], JSON.stringify(changes.at(-1)));
    raw.socket.destroy();
  });
});

describe("requests", TIMEOUT, () => {
  it("are answered, also many at a time and out of order", async () => {
    const { a, b } = await pair();
    const pending: { number: bigint; go: () => void }[] = [];
    const service = a.endpoint.serve(Ask, Answer, async ({ body: { number } }) => {
      await new Promise<void>((go) => pending.push({ number, go }));
      return (answer) => (answer.number = number * 2n);
    });
    await service.acknowledged();
    const asked = [1n, 2n, 3n].map((number) => b.endpoint.request(Ask, Answer, (ask) => (ask.number = number)));
    await until("three are open", () => pending.length === 3);
    for (const { go } of pending.reverse()) go();
    assert.deepEqual((await Promise.all(asked)).map(({ body }) => body.number), [2n, 4n, 6n]);
  });

  it("fail with what the handler threw", async () => {
    const { a, b } = await pair();
    const service = a.endpoint.serve(Ask, Answer, () => {
      throw new RangeError("far too much");
    });
    await service.acknowledged();
    await assert.rejects(b.endpoint.request(Ask, Answer, () => undefined), (error: RequestFailed) => {
      assert.deepEqual([error.code, error.typeName, error.text, error.peer], ["handlerRaised", "RangeError", "far too much", "a"]);
      return true;
    });
  });

  it("find nobody, time out, and can be aborted; what comes late is counted", async () => {
    const { a, b } = await pair();
    await assert.rejects(b.endpoint.request(Ask, Answer, () => undefined), NoResponder);
    const go: (() => void)[] = [];
    const service = a.endpoint.serve(Ask, Answer, async () => {
      await new Promise<void>((resolve) => go.push(resolve));
      return () => undefined;
    });
    await service.acknowledged();
    await assert.rejects(b.endpoint.request(Ask, Answer, () => undefined, { timeoutMs: 20 }), RequestTimeout);
    const aborting = new AbortController();
    const aborted = b.endpoint.request(Ask, Answer, () => undefined, { signal: aborting.signal });
    await until("both arrived", () => go.length === 2);
    aborting.abort(new Error("changed my mind"));
    await assert.rejects(aborted, /changed my mind/);
    await assert.rejects(b.endpoint.request(Ask, Answer, () => undefined, { signal: aborting.signal }), /changed my mind/);
    for (const one of go) one();
    await until("both answers came late", () => b.endpoint.status("a")!.late === 2);
  });

  it("are lost with the peer, and its handlers are told that nobody waits", async () => {
    const { a, b } = await pair();
    let seen = false;
    let told = false;
    const service = a.endpoint.serve(Ask, Answer, (request) => {
      seen = true;
      request.signal.addEventListener("abort", () => (told = true));
      return new Promise<never>(() => undefined);
    });
    await service.acknowledged();
    const lost = assert.rejects(b.endpoint.request(Ask, Answer, () => undefined), RequestLost);
    await until("it is there", () => seen);
    await b.endpoint.disconnect("a");
    await lost;
    await until("the handler is told", () => told);
  });

  it("to several peers: a response wins over a failure that came before it", async () => {
    const { a, b, path } = await pair();
    const c = watched("c");
    await c.endpoint.connect(path, "a");
    let answer!: () => void;
    const mayAnswer = new Promise<void>((resolve) => (answer = resolve));
    let asked = false;
    const failing = b.endpoint.serve(Ask, Answer, () => {
      asked = true;
      throw new Error("not me");
    });
    const answering = c.endpoint.serve(Ask, Answer, async () => {
      await mayAnswer;
      return (answer) => (answer.text = "me");
    });
    const echo = a.endpoint.serve(Evolving, Answer, () => () => undefined);
    await Promise.all([failing.acknowledged(), answering.acknowledged(), echo.acknowledged()]);
    const answered = a.endpoint.request(Ask, Answer, () => undefined);
    await until("b is asked", () => asked);
    // What b asks comes behind its failure: when it is answered, a has seen that.
    await b.endpoint.request(Evolving, Answer, () => undefined);
    answer();
    const { body, peer } = await answered;
    assert.deepEqual([body.text, peer], ["me", "c"]);
    answering.close();
    await answering.acknowledged();
    await assert.rejects(a.endpoint.request(Ask, Answer, () => undefined), /not me/);
  });

  it("give their credit back when they are shown to a handler", async () => {
    const { a, b } = await pair({ requestCredit: 1n });
    const service = a.endpoint.serve(Ask, Answer, ({ body: { number } }) => (answer) => (answer.number = number));
    await service.acknowledged();
    for (let i = 0n; i < 5n; i += 1n) {
      const { body } = await b.endpoint.request(Ask, Answer, (ask) => (ask.number = i), { timeoutMs: 5000 });
      assert.equal(body.number, i);
    }
  });

  it("fail when the answer is over the frame limit of who asked", async () => {
    const { a, b } = await pair({}, { frameLimit: 1024 });
    const service = a.endpoint.serve(Ask, Answer, () => (answer) => (answer.text = "long ".repeat(1000)));
    await service.acknowledged();
    await assert.rejects(b.endpoint.request(Ask, Answer, () => undefined), (error: RequestFailed) => {
      assert.deepEqual([error.code, error.typeName], ["handlerRaised", "FrameTooLarge"]);
      return true;
    });
    assert.deepEqual(b.endpoint.peers, ["a"]);
  });

  it("of one peer may be open in a number, then they are refused; answered ones do not count", async () => {
    const { a, path } = await pair();
    let answering = true;
    const service = a.endpoint.serve(Ask, Answer, () => (answering ? () => undefined : new Promise<never>(() => undefined)));
    await service.acknowledged();
    const raw = await RawPeer.connect(path);
    const { wireId, typeId, kind, name } = Ask.row;
    raw.greet("eager", { types: [{ wireId, typeId, kind, name, layout: [] }] });
    await until("up", () => a.endpoint.peers.includes("eager"));
    const { segments } = buildMessage(schema.Ask, () => undefined);
    let number = 0n;
    const send = (count: number): void => {
      const frames = Array.from({ length: count }, () => encodeFrame(wireId, REQUEST, (number += 1n), segments));
      raw.socket.write(Buffer.concat(frames));
    };
    send(20_000);
    await until("all are answered", () => raw.frames.filter((frame) => frame.kind === "response").length === 20_000);
    answering = false;
    send(16_386);
    await until("two are refused", () => raw.controls.filter((message) => message.is === "failed").length === 2);
    const refused = raw.controls.flatMap((message) => (message.is === "failed" ? [[message.correlation, message.code]] : []));
    assert.deepEqual(refused, [[36_385n, "overloaded"], [36_386n, "overloaded"]]);
  });

  it("overtake events that have no credit", async () => {
    const { a, b } = await pair({ eventCredit: 10n });
    const counts = a.endpoint.subscribe(Count);
    counts.pause();
    const service = a.endpoint.serve(Ask, Answer, () => (answer) => (answer.text = "here"));
    await service.acknowledged();
    for (let i = 0; i < 5; i += 1) await b.endpoint.broadcast(Count, () => undefined);
    assert.equal((await b.endpoint.request(Ask, Answer, () => undefined)).body.text, "here");
    assert.equal(b.endpoint.status("a")!.waitingForCredit, true);
  });

  it("whose fields cannot be read fail with unreadable", async () => {
    const { a, path } = await pair();
    const service = a.endpoint.serve(Evolving, Answer, (request) => {
      const { text } = request.body;
      return (answer) => (answer.text = text);
    });
    await service.acknowledged();
    const raw = await RawPeer.connect(path);
    const { wireId, typeId, kind, name } = Evolving.row;
    raw.send(helloOf("evil", { types: [{ wireId, typeId, kind, name, layout: [] }] }));
    raw.send({ is: "subscriptions", sequence: 1n, add: [], remove: [], all: false, ackWanted: false });
    await until("up", () => a.endpoint.peers.includes("evil"));
    // A Text without its final NUL.
    const { segments } = buildMessage(schema.Evolving, (root) => (root.text = "1234567"));
    new Uint8Array(segments[0]!.buffer).set([0x38], segments[0]!.byteLength - 1);
    raw.socket.write(encodeFrame(wireId, REQUEST, 5n, segments));
    const { correlation, code, typeName } = await raw.hears("failed");
    assert.deepEqual([correlation, code, typeName], [5n, "unreadable", "UnreadableError"]);
  });
});

describe("life", TIMEOUT, () => {
  it("ends with a stop: what is queued arrives, streams end", async () => {
    const { a, b } = await pair();
    const counts = a.endpoint.subscribe(Count);
    await counts.acknowledged();
    for (let i = 0n; i < 500n; i += 1n) void b.endpoint.broadcast(Count, (count) => (count.number = i));
    await b.endpoint.stop();
    await until("500 are there", () => counts.waiting === 500);
    assert.ok(a.changes.some((change) => change.is === "down" && change.code === "shutdown" && change.byPeer));
    await a.endpoint.stop();
    assert.equal((await counts.next()).done, true);
  });

  it("survives a peer that breaks off without a word", async () => {
    const { a, path } = await pair();
    const raw = await RawPeer.connect(path);
    raw.greet("rude");
    await until("up", () => a.endpoint.peers.includes("rude"));
    raw.socket.destroy();
    await until("down", () => a.changes.some((change) => change.is === "down" && change.peer === "rude" && change.code === ""));
    assert.deepEqual(a.endpoint.peers, ["b"]);
  });

  it("ends at once with the peer's goodbye, without one of its own", async () => {
    const { a, path } = await pair();
    const raw = await RawPeer.connect(path);
    raw.greet("polite");
    await until("up", () => a.endpoint.peers.includes("polite"));
    const started = performance.now();
    raw.send({ is: "goodbye", code: "replaced", text: "" });
    await until("the stream ends", () => raw.ended);
    assert.ok(performance.now() - started < 3000, "it took as long as a deadline");
    assert.ok(!raw.controls.some((message) => message.is === "goodbye"));
    const ends = a.changes.flatMap((change) => (change.is === "down" ? [[change.peer, change.code, change.byPeer]] : []));
    assert.deepEqual(ends, [["polite", "replaced", true]]);
  });

  it("pings a silent peer and says goodbye to a dead one", async () => {
    const path = socketPath();
    const { endpoint } = watched("a", { keepaliveMs: 30 });
    await endpoint.listen(path);
    const raw = await RawPeer.connect(path);
    raw.greet("silent");
    assert.equal((await raw.hears("goodbye")).code, "keepaliveTimeout");
    assert.equal(raw.controls.filter((message) => message.is === "ping").length, 2);
  });

  it("gives a handshake a deadline, and refuses a stranger", async () => {
    const path = socketPath();
    const { endpoint } = watched("a", { handshakeMs: 50 });
    await endpoint.listen(path);
    const mute = await RawPeer.connect(path);
    assert.equal((await mute.hears("goodbye")).code, "handshakeTimeout");
    const stranger = await RawPeer.connect(path);
    stranger.socket.write("GET / HTTP/1.1\r\n\r\n");
    assert.equal((await stranger.hears("goodbye")).code, "protocolError");
    await until("its direction ends", () => stranger.ended);
  });

  it("answers a flood of pings with few pongs", async () => {
    const { a, path } = await pair();
    const raw = await RawPeer.connect(path);
    raw.greet("flood");
    await until("up", () => a.endpoint.peers.includes("flood"));
    raw.send(...Array.from({ length: 1000 }, () => ({ is: "ping" }) as const));
    await raw.hears("pong");
    raw.send({ is: "goodbye", code: "shutdown", text: "" });
    await until("closed", () => raw.ended);
    const pongs = raw.controls.filter((message) => message.is === "pong").length;
    assert.ok(pongs < 50, `${pongs} pongs`);
  });

  it("acknowledges subscriptions when it is asked to, and only then", async () => {
    const { a, path } = await pair();
    const raw = await RawPeer.connect(path);
    raw.greet("terse");
    raw.send({ is: "ping" });
    await raw.hears("pong");
    assert.ok(!raw.controls.some((message) => message.is === "subscriptionsAck"));
    raw.send({ is: "subscriptions", sequence: 2n, add: [], remove: [], all: false, ackWanted: true });
    assert.equal((await raw.hears("subscriptionsAck")).sequence, 2n);
    assert.ok(a.endpoint.peers.includes("terse"));
  });

  it("replaces a socket file that nobody serves, and not one that is served", async () => {
    const { a, path } = await pair();
    await assert.rejects(watched("other").endpoint.listen(path), /is served by another process/);
    assert.deepEqual(a.endpoint.peers, ["b"]);
    const { spawnSync } = await import("node:child_process");
    const dead = socketPath();
    const script = `require("net").createServer().listen(${JSON.stringify(dead)}, () => process.kill(process.pid, "SIGKILL"))`;
    spawnSync(process.execPath, ["-e", script]);
    await watched("heir").endpoint.listen(dead);
  });
});

