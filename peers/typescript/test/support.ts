/** What several tests need. */

import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { type Change, Endpoint, type EndpointOptions } from "../src/index.js";
import { type Control, decodeControl, encodeControl } from "../src/wire/control.js";
import { type Frame, FrameDecoder } from "../src/wire/frame.js";
import { types } from "../conformance/plans.js";

/** Random numbers that a seed repeats: mulberry32. */
export function randomFrom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** From TEST_SEED, or another one each time; it is printed. */
export function seedOf(what: string): number {
  const seed = Number(process.env["TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 32));
  console.log(`${what}: TEST_SEED=${seed}`);
  return seed;
}

/** Wait until it holds; the test's own time limit ends it. */
export async function until(what: string, holds: () => boolean): Promise<void> {
  const end = performance.now() + 10_000;
  while (!holds()) {
    if (performance.now() > end) throw new Error(`waited for 10 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Let everything run that can run without anything from outside. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 8; i += 1) await turn();
}

const folder = mkdtempSync(join(tmpdir(), "lcts-"));
let sockets = 0;
after(() => rmSync(folder, { recursive: true, force: true }));

export function socketPath(): string {
  sockets += 1;
  return join(folder, `${sockets}.sock`);
}

export interface Watched {
  readonly endpoint: Endpoint;
  readonly changes: Change[];
}

const started: Endpoint[] = [];
/** Stopped when the test file ends, whatever its tests did. */
after(async () => {
  await Promise.all(started.map((endpoint) => endpoint.stop()));
});

/** An endpoint that knows every type of conformance.capnp, and what it was told. */
export function watched(name: string, options: Partial<EndpointOptions> = {}): Watched {
  const changes: Change[] = [];
  const endpoint = new Endpoint({ name, keepaliveMs: 0, ...options, onChange: (change) => changes.push(change) });
  const { Late, ...others } = types;
  endpoint.declare(...Object.values(others));
  endpoint.register(Late!);
  started.push(endpoint);
  return { endpoint, changes };
}

/** Two endpoints on a socket: "a" serves, "b" has connected. */
export async function pair(
  a: Partial<EndpointOptions> = {},
  b: Partial<EndpointOptions> = {},
): Promise<{ a: Watched; b: Watched; path: string }> {
  const path = socketPath();
  const serving = watched("a", a);
  const connecting = watched("b", b);
  await serving.endpoint.listen(path);
  await connecting.endpoint.connect(path, "a");
  await until("a knows b", () => serving.endpoint.peers.includes("b"));
  return { a: serving, b: connecting, path };
}

/** A stream on which a test speaks frame by frame. */
export class RawPeer {
  readonly frames: Frame[] = [];
  readonly controls: Control[] = [];
  ended = false;
  readonly #decoder = new FrameDecoder(2 ** 31, () => undefined);

  private constructor(readonly socket: net.Socket) {
    socket.on("data", (chunk: Buffer) => {
      for (let at = 0; at < chunk.length; ) {
        const { frame, end } = this.#decoder.take(chunk, at);
        at = end;
        if (frame === null) continue;
        this.frames.push(frame);
        if (frame.kind === "control") this.controls.push(decodeControl(frame.segments));
      }
    });
    socket.on("end", () => (this.ended = true));
    socket.on("error", () => (this.ended = true));
    after(() => socket.destroy());
  }

  static async connect(path: string): Promise<RawPeer> {
    const socket = net.connect({ path, allowHalfOpen: true });
    await new Promise<void>((resolve, reject) => socket.once("connect", resolve).once("error", reject));
    return new RawPeer(socket);
  }

  send(...messages: Control[]): void {
    for (const message of messages) this.socket.write(encodeControl(message));
  }

  /** Hello and first subscriptions. */
  greet(name: string, changes: Partial<Extract<Control, { is: "hello" }>> = {}): void {
    this.send(helloOf(name, changes), { is: "subscriptions", sequence: 1n, add: [], remove: [], all: true, ackWanted: false });
  }

  async hears<K extends Control["is"]>(is: K): Promise<Extract<Control, { is: K }>> {
    await until(`a ${is}`, () => this.controls.some((message) => message.is === is));
    return this.controls.find((message) => message.is === is) as Extract<Control, { is: K }>;
  }
}

export function helloOf(name: string, changes: Partial<Extract<Control, { is: "hello" }>> = {}): Control {
  return {
    is: "hello",
    name,
    instance: Buffer.from(name.padEnd(16, "-").slice(0, 16)),
    implementation: "test",
    version: "1",
    frameLimit: 1_048_576,
    keepaliveMs: 0,
    eventCredit: 2n ** 64n - 1n,
    requestCredit: 2n ** 64n - 1n,
    features: [],
    types: [],
    ...changes,
  };
}
