/** `conformance peer`: an endpoint that does what JSON lines say. peers/README.md has the protocol. */

import { createInterface } from "node:readline";
import {
  type Change,
  Endpoint,
  type EndpointOptions,
  NoResponder,
  type ReceivedEvent,
  RequestFailed,
  RequestLost,
  RequestTimeout,
  type Service,
  type Subscription,
} from "../src/index.js";
import * as schema from "../generated/conformance.js";
import { serveAsk } from "./asking.js";
import { Answer, Ask, Blob, Count, nameOf, typeNamed, types } from "./plans.js";
import { buildValue, type Json, readValue } from "./values.js";

interface Command {
  readonly do: string;
  readonly [key: string]: Json | undefined;
}

/** Byte k is (31 k + id) mod 256. */
function fillBlob(bytes: Uint8Array, id: number): void {
  for (let k = 0; k < bytes.length; k += 1) bytes[k] = 31 * k + id;
}

function sumOf(bytes: Uint8Array): number {
  let sum = 0;
  for (const byte of bytes) sum += byte;
  return sum % 2 ** 32;
}

/** The Count events that arrived, and who waits for how many. */
class Counted {
  #count = 0;
  #inOrder = true;
  #last: bigint | null = null;
  #waiting: { count: number; reached: () => void }[] = [];

  get inOrder(): boolean {
    return this.#inOrder;
  }

  add(number: bigint): void {
    if (this.#last !== null && number !== this.#last + 1n) this.#inOrder = false;
    this.#last = number;
    this.#count += 1;
    for (const { count, reached } of this.#waiting) if (this.#count >= count) reached();
    this.#waiting = this.#waiting.filter(({ count }) => this.#count < count);
  }

  async reach(count: number): Promise<void> {
    if (this.#count >= count) return;
    await new Promise<void>((reached) => this.#waiting.push({ count, reached }));
  }
}

export class ConformancePeer {
  readonly #endpoint: Endpoint;
  readonly #subscriptions = new Map<string, Subscription>();
  readonly #counted = new Counted();
  #service: Service | null = null;
  #remote = "";
  /** Connections that came up. */
  #ups = 0;
  #held = false;

  constructor(options: EndpointOptions) {
    this.#endpoint = new Endpoint({ ...options, onChange: (change) => this.#changed(change) });
    const { Late, ...declared } = types;
    this.#endpoint.declare(...Object.values(declared));
    this.#endpoint.register(Late!);
  }

  #say(line: { is: string; [key: string]: Json }): void {
    process.stdout.write(`${JSON.stringify(line)}\n`);
  }

  #changed(change: Change): void {
    switch (change.is) {
      case "up":
        this.#ups += 1;
        this.#remote = change.peer;
        this.#say({ is: "up", peer: change.peer });
        break;
      case "down": {
        const { peer, code, byPeer } = change;
        if (peer === this.#remote && !this.#endpoint.peers.includes(peer)) this.#remote = "";
        this.#say({ is: "down", peer, code, by_peer: byPeer });
        break;
      }
      case "refused":
        this.#say({ is: "refused", code: change.code });
        break;
      case "subscribed":
      case "unsubscribed":
        if (change.peer === this.#remote) this.#say({ is: `peer_${change.is}`, type: nameOf(change.typeId) });
        break;
      case "tooLarge":
        console.error(`a ${change.type.name} of ${change.size} bytes is over the limit of ${change.peer}, ${change.limit}`);
        break;
      case "disabled":
        console.error(`${change.type.name} is not exchanged with ${change.peer}: ${change.difference}`);
        break;
    }
  }

  /** Live until `stop` or the end of standard input. */
  async run(serve: string | null, connect: string | null, expect: string): Promise<void> {
    if (serve !== null) {
      await this.#endpoint.listen(serve);
      this.#say({ is: "listening" });
    }
    // What refused us is said by #changed.
    if (connect !== null) this.#endpoint.connect(connect, expect).catch((error: unknown) => console.error(String(error)));
    const stopped = await this.#obey();
    await this.#endpoint.stop();
    if (stopped) this.#say({ is: "stopped" });
  }

  /** Do what standard input says; true after `stop`, false at its end. */
  async #obey(): Promise<boolean> {
    for await (const line of createInterface({ input: process.stdin, crlfDelay: Number.POSITIVE_INFINITY })) {
      if (line.trim() === "") continue;
      try {
        const command = JSON.parse(line) as Command;
        if (command.do === "stop") return true;
        await this.#do(command);
      } catch (error) {
        this.#say({ is: "error", text: `${String(error)} (${line.slice(0, 200)})` });
      }
    }
    return false;
  }

  async #do(command: Command): Promise<void> {
    const tagged = (work: Promise<void>): void => {
      work.catch((error: unknown) => this.#say({ is: "error", text: String(error) }));
    };
    switch (command.do) {
      case "subscribe":
        await this.#subscribe(command["types"] as string[]);
        this.#say({ is: "subscribed" });
        break;
      case "unsubscribe":
        await this.#unsubscribe(command["types"] as string[]);
        this.#say({ is: "unsubscribed" });
        break;
      case "broadcast": {
        const name = command["type"] as string;
        await this.#endpoint.broadcast(typeNamed(name), (event) => buildValue(name, event, command["value"]!), this.#to);
        this.#say({ is: "sent" });
        break;
      }
      case "blob":
        await this.#blob(command["id"] as number, command["size"] as number);
        this.#say({ is: "sent" });
        break;
      case "count":
        tagged(this.#count(command));
        break;
      case "await_count":
        tagged(this.#awaitCount(command));
        break;
      case "request":
        tagged(this.#request(command));
        break;
      case "hold":
        this.#held = true;
        for (const stream of this.#subscriptions.values()) stream.pause();
        this.#say({ is: "holding" });
        break;
      case "resume":
        this.#held = false;
        for (const stream of this.#subscriptions.values()) stream.resume();
        this.#say({ is: "resumed" });
        break;
      case "serve_requests":
        this.#service ??= serveAsk(this.#endpoint, true);
        await this.#service.acknowledged();
        this.#say({ is: "serving" });
        break;
      case "status":
        this.#status();
        break;
      default:
        throw new Error(`there is no command ${JSON.stringify(command.do)}`);
    }
  }

  get #to(): { to: string } {
    return { to: this.#remote };
  }

  // --- events -------------------------------------------------------------------------------------------

  async #subscribe(names: readonly string[]): Promise<void> {
    const streams = names.map((name) => {
      const known = this.#subscriptions.get(name);
      if (known !== undefined) return known;
      const stream = this.#endpoint.subscribe(typeNamed(name));
      if (this.#held) stream.pause();
      this.#subscriptions.set(name, stream);
      void this.#read(name, stream);
      return stream;
    });
    for (const stream of streams) await stream.acknowledged();
  }

  async #unsubscribe(names: readonly string[]): Promise<void> {
    for (const name of names) {
      const stream = this.#subscriptions.get(name);
      if (stream === undefined) continue;
      this.#subscriptions.delete(name);
      stream.close();
      await stream.acknowledged();
    }
  }

  async #read(name: string, stream: Subscription): Promise<void> {
    for await (const event of stream) {
      try {
        this.#take(name, event);
      } catch (error) {
        console.error(`a ${name} that cannot be read: ${String(error)}`);
      }
    }
  }

  #take(name: string, event: ReceivedEvent): void {
    if (name === "Count") {
      this.#counted.add((event.body as schema.Count).number);
    } else if (name === "Blob") {
      const { id, data } = event.body as schema.Blob;
      const bytes = data.toUint8Array();
      this.#say({ is: "received_blob", id, size: bytes.length, sum: sumOf(bytes) });
    } else {
      this.#say({ is: "received", type: name, value: readValue(name, event.body) });
    }
  }

  async #blob(id: number, size: number): Promise<void> {
    const fill = (blob: schema.Blob): void => {
      blob.id = id;
      fillBlob(blob._initData(size).toUint8Array(), id);
    };
    await this.#endpoint.broadcast(Blob, fill, this.#to);
  }

  async #count(command: Command): Promise<void> {
    const connection = this.#ups;
    for (let number = command["from"] as number; number < (command["to"] as number); number += 1) {
      // The rest would go nowhere, or surprise the next peer.
      if (this.#ups !== connection || this.#remote === "") break;
      await this.#endpoint.broadcast(Count, (count) => (count.number = BigInt(number)), this.#to);
    }
    this.#say({ is: "counted", tag: command["tag"] ?? null });
  }

  async #awaitCount(command: Command): Promise<void> {
    const count = command["count"] as number;
    await this.#counted.reach(count);
    this.#say({ is: "count_reached", tag: command["tag"] ?? null, count, in_order: this.#counted.inOrder });
  }

  // --- requests -----------------------------------------------------------------------------------------

  async #request(command: Command): Promise<void> {
    const tag = command["tag"] ?? null;
    const value = { number: command["number"]!, mode: command["mode"]! };
    try {
      const fill = (ask: schema.Ask): void => buildValue("Ask", ask, value);
      const { body } = await this.#endpoint.request(Ask, Answer, fill, {
        ...this.#to,
        timeoutMs: command["timeout_ms"] as number,
      });
      this.#say({ is: "answered", tag, number: String(body.number), text: body.text });
    } catch (error) {
      if (error instanceof RequestFailed) {
        const { code, typeName, text } = error;
        this.#say({ is: "failed", tag, code, type_name: typeName, text });
      } else if (error instanceof NoResponder) {
        this.#say({ is: "failed", tag, code: "noHandler", type_name: "", text: error.message });
      } else if (error instanceof RequestTimeout) {
        this.#say({ is: "timed_out", tag });
      } else if (error instanceof RequestLost) {
        this.#say({ is: "lost", tag });
      } else {
        throw error;
      }
    }
  }

  #status(): void {
    const status = this.#endpoint.status(this.#remote);
    this.#say({
      is: "status",
      sent_events: status?.sentEvents ?? 0,
      received_events: status?.receivedEvents ?? 0,
      skipped: status?.skipped ?? 0,
      waiting_for_credit: status?.waitingForCredit ?? false,
    });
  }
}
