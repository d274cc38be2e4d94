/** The endpoint under test in a conversation: what its user does and sees, and what it sends. */

import { Duplex } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import { openMessage } from "../src/capnp/received.js";
import {
  Endpoint,
  type PeerStatus,
  type ReceivedEvent,
  RequestFailed,
  RequestLost,
  type Subscription,
  UnreadableError,
} from "../src/index.js";
import { decodeControl } from "../src/wire/control.js";
import { type Frame, FrameDecoder } from "../src/wire/frame.js";
import { Answer, nameOf, typeNamed, types } from "./plans.js";
import { serveAsk } from "./asking.js";
import { controlValue } from "./comparing.js";
import type { Facts } from "./loading.js";
import { buildValue, type Json, readValue } from "./values.js";

type JsonObject = { [key: string]: Json };

const KNOWN = ["Everything", "Count", "Blob", "Late", "Evolving", "Ask", "Answer"];

/** A message of this type as a value; or that it cannot be read. */
export function shown(type: string, open: () => Parameters<typeof readValue>[1]): JsonObject {
  try {
    return { type, value: readValue(type, open()) };
  } catch (error) {
    if (!(error instanceof UnreadableError)) throw error;
    return { type, unreadable: true };
  }
}

export class Consumer {
  readonly facts: JsonObject[] = [];
  readonly frames: JsonObject[] = [];
  readonly requestNumbers: bigint[] = [];
  lastSequence = 0n;
  /** The consumer has ended its direction. */
  ended = false;
  /** Its counters while the connection was up. */
  status: PeerStatus | null = null;
  readonly #endpoint: Endpoint;
  readonly #stream: Duplex;
  readonly #decoder = new FrameDecoder(2 ** 31, () => undefined);
  readonly #names = new Map<number, string>();
  readonly #streams = new Map<string, { pause(): void; resume(): void; close(): void }[]>();
  readonly #requests = new Map<string, AbortController>();
  readonly #serve: boolean;
  readonly #all: boolean;
  /** Changes whenever something happens. */
  #activity = 0;

  constructor(role: Json, setup: Facts) {
    this.#serve = setup["serve"] === true;
    this.#endpoint = new Endpoint({
      name: (setup["name"] as string | undefined) ?? "consumer",
      instance: Buffer.from((setup["instance"] as string | undefined) ?? "c0c1c2c3c4c5c6c7c8c9cacbcccdcecf", "hex"),
      frameLimit: (setup["frame_limit"] as number | undefined) ?? 1_048_576,
      eventCredit: windowOf(setup["event_credit"], 16_777_216n),
      requestCredit: windowOf(setup["request_credit"], 4_194_304n),
      keepaliveMs: (setup["keepalive_ms"] as number | undefined) ?? 0,
      onChange: (change) => {
        if (change.is === "up") this.#fact({ up: change.peer });
        if (change.is === "down" || change.is === "refused") {
          this.#fact({ closed: { code: change.code, by_peer: change.byPeer } });
        }
      },
    });
    this.#endpoint.register(...KNOWN.map((name) => typeNamed(name)));
    this.#stream = new Duplex({
      allowHalfOpen: true,
      read: () => undefined,
      write: (chunk: Buffer, _encoding, done) => {
        this.#sent(chunk);
        done();
      },
      final: (done) => {
        this.ended = true;
        done();
      },
    });
    this.#all = setup["all"] === true;
    for (const name of (setup["subscribe"] as string[] | undefined) ?? []) this.#subscribe(name);
    if (this.#all) {
      const stream = this.#endpoint.subscribeAll();
      this.#streams.set("*", [stream]);
      this.#read(stream, true);
    }
    this.#endpoint.attach(this.#stream, role === "connector" ? "vector" : null).catch(() => undefined);
  }

  #fact(fact: JsonObject): void {
    this.#activity += 1;
    this.facts.push(fact);
  }

  // --- bytes --------------------------------------------------------------------------------------------

  async receive(data: Buffer, piece: number): Promise<void> {
    for (let at = 0; at < data.length; at += piece) {
      if (this.#stream.destroyed) break;
      // A copy: a stream gives away what is pushed into it.
      this.#stream.push(Buffer.from(data.subarray(at, at + piece)));
    }
    await this.settle();
  }

  async eof(): Promise<void> {
    if (!this.#stream.destroyed) this.#stream.push(null);
    await this.settle();
  }

  /** Wait until nothing happens any more. */
  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 4; quiet += 1) {
      const before = this.#activity;
      await turn();
      if (this.#activity !== before) quiet = -1;
    }
    this.status = this.#endpoint.status("vector") ?? this.status;
  }

  #sent(chunk: Buffer): void {
    this.#activity += 1;
    for (let at = 0; at < chunk.length; ) {
      const { frame, end } = this.#decoder.take(chunk, at);
      at = end;
      if (frame !== null) this.#show(frame);
    }
  }

  #show(frame: Frame): void {
    if (this.frames.at(-1)?.["sent"] === "goodbye") throw new Error("a frame after goodbye");
    if (frame.kind === "control") {
      const message = decodeControl(frame.segments);
      const { variant, fields } = controlValue(message);
      const rows = message.is === "hello" || message.is === "declare" ? message.types : [];
      for (const row of rows) if (row.wireId !== 0) this.#names.set(row.wireId, nameOf(row.typeId));
      if (message.is === "subscriptions") this.lastSequence = message.sequence;
      this.frames.push({ sent: variant, ...(fields as JsonObject) });
      return;
    }
    const name = this.#names.get(frame.wireId)!;
    const value = shown(name, () => openMessage(frame.segments, types[name]!.struct));
    const numbered: JsonObject = frame.kind === "event" ? {} : { correlation: String(frame.correlation) };
    if (frame.kind === "request") this.requestNumbers.push(frame.correlation);
    this.frames.push({ sent: frame.kind, ...value, ...numbered });
  }

  // --- the user -----------------------------------------------------------------------------------------

  #subscribe(name: string): void {
    const stream = this.#endpoint.subscribe(typeNamed(name));
    const streams: { pause(): void; resume(): void; close(): void }[] = [stream];
    // What comes is seen by the stream of all types, where there is one.
    this.#read(stream, !this.#all);
    if (name === "Ask") {
      const service = serveAsk(this.#endpoint, this.#serve, (request) => {
        this.#fact({ request: { number: String(request.number), ...shown("Ask", () => request.body) } });
      });
      streams.push(service);
    }
    this.#streams.set(name, streams);
  }

  #read(stream: Subscription, show: boolean): void {
    const take = async (): Promise<void> => {
      for await (const event of stream) if (show) this.#fact({ event: this.#shownEvent(event) });
    };
    void take();
  }

  #shownEvent(event: ReceivedEvent): JsonObject {
    return shown(nameOf(event.type.typeId), () => event.body);
  }

  async do(action: string, step: JsonObject): Promise<void> {
    switch (action) {
      case "broadcast": {
        const name = step["type"] as string;
        const sent = this.#endpoint.broadcast(typeNamed(name), (event) => buildValue(name, event, step["value"]!));
        // One that is over the peer's frame limit throws; that nothing is sent is what the script looks at.
        sent.catch(() => undefined);
        break;
      }
      case "request":
        this.#request(step["type"] as string, step["value"]!, step["tag"] as string);
        break;
      case "forget":
        this.#requests.get(step["tag"] as string)!.abort();
        break;
      case "subscribe":
        for (const name of step["types"] as string[]) this.#subscribe(name);
        break;
      case "unsubscribe":
        for (const name of step["types"] as string[]) for (const stream of this.#streams.get(name)!) stream.close();
        break;
      case "hold":
        for (const stream of [...this.#streams.values()].flat()) stream.pause();
        break;
      case "resume":
        for (const stream of [...this.#streams.values()].flat()) stream.resume();
        break;
      case "stop":
        void this.#endpoint.stop();
        break;
      default:
        throw new Error(`unknown action ${action}`);
    }
    await this.settle();
  }

  #request(name: string, value: Json, tag: string): void {
    const given = new AbortController();
    this.#requests.set(tag, given);
    const asked = this.#endpoint.request(typeNamed(name), Answer, (request) => buildValue(name, request, value), {
      to: "vector",
      signal: given.signal,
    });
    asked.then(
      (answer) => this.#fact({ answered: { tag, ...shown("Answer", () => answer.body) } }),
      (error: unknown) => {
        if (error instanceof RequestFailed) {
          const { code, typeName, text } = error;
          this.#fact({ failed: code === "" ? { tag, code } : { tag, code, typeName, text } });
        } else if (error instanceof RequestLost) {
          this.#fact({ lost: { tag } });
        } else if (!given.signal.aborted) {
          throw error;
        }
      },
    );
  }

  /** End what is left. */
  async finish(): Promise<void> {
    this.#stream.destroy();
    await this.#endpoint.stop();
  }
}

function windowOf(size: Json | undefined, byDefault: bigint): bigint {
  if (size === undefined) return byDefault;
  return size === "unlimited" ? 2n ** 64n - 1n : BigInt(size as number | string);
}

