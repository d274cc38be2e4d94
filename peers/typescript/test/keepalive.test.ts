import assert from "node:assert/strict";
import { it } from "node:test";
import { Keepalive } from "../src/session/keepalive.js";

it("pings after each silent interval, and gives up after three with two pings unanswered", () => {
  const keepalive = new Keepalive(100, 3, 0);
  assert.equal(keepalive.deadline, 100);
  assert.equal(keepalive.check(99), "nothing");
  assert.equal(keepalive.check(100), "ping");
  assert.equal(keepalive.check(150), "nothing");
  assert.equal(keepalive.check(200), "ping");
  assert.equal(keepalive.deadline, 300);
  assert.equal(keepalive.check(300), "dead");
});

it("begins anew with every byte", () => {
  const keepalive = new Keepalive(100, 3, 0);
  keepalive.check(100);
  keepalive.check(200);
  keepalive.heard(299);
  assert.equal(keepalive.check(300), "nothing");
  assert.equal(keepalive.check(399), "ping");
});

it("does not blame the peer for the time in which this process was stopped", () => {
  const keepalive = new Keepalive(100, 3, 0);
  assert.equal(keepalive.check(5000), "ping");
  assert.equal(keepalive.check(5100), "ping");
  assert.equal(keepalive.check(5200), "dead");
});

it("never pings with interval 0", () => {
  const keepalive = new Keepalive(0, 3, 0);
  assert.equal(keepalive.deadline, null);
  assert.equal(keepalive.check(1e9), "nothing");
});
