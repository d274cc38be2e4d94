/** docs/wire.md section 13: who may have a connection under a name. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Change, ConnectionClosed } from "../src/index.js";
import { isLower } from "../src/endpoint/names.js";
import { Count } from "../conformance/plans.js";
import { pair, RawPeer, socketPath, until, watched } from "./support.js";

const TIMEOUT = { timeout: 20_000 };

function downs(changes: readonly Change[]): unknown[] {
  return changes.flatMap((change) => (change.is === "down" ? [change.code] : []));
}

it("compares names byte by byte", () => {
  assert.ok(isLower("a", "b") && isLower("a", "ab") && isLower("Z", "a") && isLower("-a", ".a"));
  assert.ok(!isLower("b", "a") && !isLower("a", "a"));
});

describe("names", TIMEOUT, () => {
  it("wrong: the connector says so", async () => {
    const path = socketPath();
    await watched("a").endpoint.listen(path);
    const { endpoint, changes } = watched("b");
    await assert.rejects(endpoint.connect(path, "c"), (error: ConnectionClosed) => error.code === "wrongName" && !error.byPeer);
    assert.deepEqual(changes.map((change) => change.is), ["refused"]);
  });

  it("our own is in use", async () => {
    const path = socketPath();
    await watched("a").endpoint.listen(path);
    const { endpoint } = watched("a");
    await assert.rejects(endpoint.connect(path, "a"), (error: ConnectionClosed) => error.code === "nameInUse");
  });

  it("ourselves: duplicate", async () => {
    const path = socketPath();
    const { endpoint } = watched("a");
    await endpoint.listen(path);
    await assert.rejects(endpoint.connect(path, "a"), (error: ConnectionClosed) => error.code === "duplicate");
  });

  it("of a living holder stays with it", async () => {
    const { a, b, path } = await pair();
    const claimant = watched("b");
    await assert.rejects(claimant.endpoint.connect(path, "a"), (error: ConnectionClosed) => error.code === "nameInUse" && error.byPeer);
    assert.deepEqual([a.endpoint.peers, downs(b.changes)], [["b"], []]);
  });

  it("of a silent holder goes to the newcomer after a second; to the first of two", async () => {
    const path = socketPath();
    const { endpoint, changes } = watched("a");
    await endpoint.listen(path);
    const silent = await RawPeer.connect(path);
    silent.greet("b");
    await until("up", () => endpoint.peers.includes("b"));
    const results = await Promise.allSettled([1, 2].map(() => watched("b").endpoint.connect(path, "a")));
    assert.deepEqual(results.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
    assert.equal((await silent.hears("goodbye")).code, "replaced");
    assert.deepEqual(downs(changes), ["replaced"]);
    assert.deepEqual(endpoint.peers, ["b"]);
  });

  it("goes to a newcomer that did not wait for the decision: what it sent meanwhile is kept", async () => {
    const path = socketPath();
    const { endpoint, changes } = watched("a");
    await endpoint.listen(path);
    const silent = await RawPeer.connect(path);
    silent.greet("b");
    await until("up", () => endpoint.peers.includes("b"));
    const newcomer = await RawPeer.connect(path);
    // Hello, first subscriptions and a ping, before the other side has decided.
    newcomer.greet("b", { instance: Buffer.alloc(16, 7) });
    newcomer.send({ is: "ping" });
    await silent.hears("goodbye");
    await until("up again", () => changes.filter((change) => change.is === "up").length === 2);
    assert.deepEqual(newcomer.controls.slice(0, 2).map((message) => message.is), ["hello", "subscriptions"]);
    await newcomer.hears("pong");
  });

  it("of a newcomer that went away is forgotten", async () => {
    const path = socketPath();
    const { endpoint } = watched("a");
    await endpoint.listen(path);
    const holder = await RawPeer.connect(path);
    holder.greet("b");
    await until("up", () => endpoint.peers.includes("b"));
    const newcomer = await RawPeer.connect(path);
    newcomer.greet("b", { instance: Buffer.alloc(16, 7) });
    await holder.hears("ping");
    newcomer.socket.destroy();
    holder.send({ is: "pong" });
    const other = await RawPeer.connect(path);
    other.greet("c");
    await until("up", () => endpoint.peers.includes("c"));
    assert.deepEqual(endpoint.peers.sort(), ["b", "c"]);
  });

  it("stays with a silent holder when the claimant is gone before it is decided", async () => {
    const path = socketPath();
    const { endpoint } = watched("a");
    await endpoint.listen(path);
    const silent = await RawPeer.connect(path);
    silent.greet("b");
    await until("up", () => endpoint.peers.includes("b"));
    const newcomer = await RawPeer.connect(path);
    newcomer.greet("b", { instance: Buffer.alloc(16, 7) });
    await silent.hears("ping");
    newcomer.socket.destroy();
    // The second that a holder has, and more: nothing may happen.
    await new Promise((resolve) => setTimeout(resolve, 1300));
    assert.ok(!silent.controls.some((message) => message.is === "goodbye"));
    assert.deepEqual(endpoint.peers, ["b"]);
  });

  it("of the same instance, connecting again: the newer connection works", async () => {
    const { a, b, path } = await pair();
    await b.endpoint.connect(path, "a");
    await until("the old one is down", () => downs(a.changes).length === 1);
    assert.deepEqual(downs(a.changes), ["replaced"]);
    const counts = a.endpoint.subscribe(Count);
    await counts.acknowledged();
    await until("b knows", () => b.changes.some((change) => change.is === "subscribed"));
    await b.endpoint.broadcast(Count, (count) => (count.number = 3n));
    assert.equal((await counts.next()).value!.body.number, 3n);
  });

  it("dialled the other way later: what the lower name opened survives, and nobody is told of a failure", async () => {
    const { a, b, path } = await pair();
    const other = socketPath();
    await b.endpoint.listen(other);
    await a.endpoint.connect(other, "b");
    await until("the first is down", () => downs(a.changes).length === 1 && downs(b.changes).length === 1);
    assert.deepEqual([downs(a.changes), downs(b.changes)], [["duplicate"], ["duplicate"]]);
    await b.endpoint.connect(path, "a");
    assert.deepEqual([downs(a.changes), downs(b.changes)], [["duplicate"], ["duplicate"]]);
    assert.deepEqual([a.endpoint.peers, b.endpoint.peers], [["b"], ["a"]]);
  });

  it("dialled both ways at once: one connection is left, and both dials succeed", async () => {
    for (let round = 0; round < 20; round += 1) {
      const paths = [socketPath(), socketPath()] as const;
      const a = watched("a");
      const b = watched("b");
      await Promise.all([a.endpoint.listen(paths[0]), b.endpoint.listen(paths[1])]);
      await Promise.all([a.endpoint.connect(paths[1], "b"), b.endpoint.connect(paths[0], "a")]);
      const counts = a.endpoint.subscribe(Count);
      await counts.acknowledged();
      await b.endpoint.broadcast(Count, (count) => (count.number = 9n));
      assert.equal((await counts.next()).value!.body.number, 9n);
      assert.equal(counts.waiting, 0);
      await Promise.all([a.endpoint.stop(), b.endpoint.stop()]);
    }
  });
});
