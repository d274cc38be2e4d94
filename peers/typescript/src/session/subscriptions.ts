/** Who subscribes to what: docs/wire.md section 7. */

import { ProtocolError } from "../errors.js";
import type { Subscriptions } from "../wire/control.js";
import type { Outbox } from "./outbox.js";
import type { PeerTable } from "./table.js";

/** What a peer subscribes to. */
export class PeerSubscriptions {
  readonly #wanted = new Set<bigint>();
  #all = false;
  #sequence = 0n;

  /** Of the last message that was applied. */
  get sequence(): bigint {
    return this.#sequence;
  }

  has(typeId: bigint): boolean {
    return this.#all || this.#wanted.has(typeId);
  }

  /**
   * Change the set, and drop what is queued and no longer wanted. It costs what the message lists, not what the set or
   * the queue holds: many small messages must stay cheap.
   */
  apply(message: Subscriptions, table: PeerTable, outbox: Outbox): { added: bigint[]; removed: bigint[] } {
    const { sequence, add, remove, all } = message;
    if (sequence !== this.#sequence + 1n) {
      throw new ProtocolError("protocolError", `subscriptions ${sequence} after ${this.#sequence}`);
    }
    for (const typeId of add) {
      if (table.hasNumber(typeId)) continue;
      const text = `a subscription to 0x${typeId.toString(16)}, which was never declared with a wire id`;
      throw new ProtocolError("unknownId", text);
    }
    this.#sequence = sequence;
    const before = new Map([...remove, ...add].map((typeId) => [typeId, this.#wanted.has(typeId)]));
    for (const typeId of remove) this.#wanted.delete(typeId);
    for (const typeId of add) this.#wanted.add(typeId);
    const changed = [...before].filter(([typeId, was]) => this.#wanted.has(typeId) !== was).map(([typeId]) => typeId);
    const candidates = this.#all && !all ? outbox.queuedTypes : changed;
    this.#all = all;
    if (candidates.some((typeId) => !this.has(typeId) && outbox.hasQueued(typeId))) {
      outbox.purge((typeId) => this.has(typeId));
    }
    return {
      added: changed.filter((typeId) => this.#wanted.has(typeId)),
      removed: changed.filter((typeId) => !this.#wanted.has(typeId)),
    };
  }
}

/** How far a peer has acknowledged our subscriptions, and until when it has to. */
export class Acknowledgements {
  #sequence = 0n;
  #acknowledged = 0n;
  #deadline: number | null = null;

  constructor(private readonly timeoutMs: number) {}

  /** The sequence of the next `subscriptions`. */
  next(): bigint {
    this.#sequence += 1n;
    return this.#sequence;
  }

  /** When a peer that still owes one is to be given up. */
  get deadline(): number | null {
    return this.#deadline;
  }

  /** Starts the time that the peer has, unless it runs, or nothing is owed. For a connection that is up. */
  await(now: number): void {
    if (this.#acknowledged < this.#sequence) this.#deadline ??= now + this.timeoutMs;
  }

  /** The peer has applied them up to this one. What is still owed has its time from now on. */
  reached(sequence: bigint, now: number): void {
    if (sequence < 1n || sequence > this.#sequence || sequence < this.#acknowledged) {
      throw new ProtocolError(
        "protocolError",
        `an acknowledgement of subscriptions ${sequence}; ` +
          `the last sent are ${this.#sequence}, the last acknowledged ${this.#acknowledged}`,
      );
    }
    this.#acknowledged = sequence;
    this.#deadline = null;
    this.await(now);
  }

  /** Throws if the peer took too long. */
  check(now: number): void {
    if (this.#deadline === null || now < this.#deadline) return;
    throw new ProtocolError("protocolError", `subscriptions were not acknowledged within ${this.timeoutMs} ms`);
  }
}
