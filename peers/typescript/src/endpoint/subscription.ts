/** A stream of received events: `for await (const event of endpoint.subscribe(Count))`. */

import type { Struct } from "capnp-es";
import { openMessage } from "../capnp/received.js";
import { Queue } from "../session/queue.js";
import type { EventType } from "../types.js";
import type { Frame } from "../wire/frame.js";

/** An event that arrived; its fields are read in the bytes that were received. */
export class ReceivedEvent<T extends Struct = Struct> {
  #body: T | null = null;
  readonly #frame: Frame;

  constructor(
    readonly type: EventType<T>,
    /** Name of the peer that sent it. */
    readonly peer: string,
    frame: Frame,
  ) {
    this.#frame = frame;
  }

  /** Bytes of the frame that carried it. */
  get size(): number {
    return this.#frame.size;
  }

  /** The message's root. Throws an UnreadableError if the message cannot be read; so may each of its fields. */
  get body(): T {
    return (this.#body ??= openMessage(this.#frame.segments, this.type.struct));
  }
}

/** One event on its way to several subscriptions: `taken` is called when the last has it. */
export class Delivery {
  #left: number;

  constructor(
    readonly event: ReceivedEvent,
    subscriptions: number,
    private readonly taken: () => void,
  ) {
    this.#left = subscriptions;
  }

  release(): void {
    this.#left -= 1;
    if (this.#left === 0) this.taken();
  }
}

type Next<T extends Struct> = IteratorResult<ReceivedEvent<T>, undefined>;

/**
 * Gives each event once. Events wait here until they are fetched; their credit goes back to the peer then, so a slow
 * reader slows its publishers down, and what can wait is bounded by the windows granted to them.
 */
export class Subscription<T extends Struct = Struct> implements AsyncIterableIterator<ReceivedEvent<T>> {
  readonly #queue = new Queue<Delivery>();
  readonly #readers = new Queue<(next: Next<T>) => void>();
  #paused = false;
  #closed = false;
  #acknowledged: Promise<unknown> = Promise.resolve();

  /** @param onClose Called once, when nobody wants the events any more. */
  constructor(
    readonly types: readonly EventType<T>[],
    private readonly onClose: (subscription: Subscription<T>) => Promise<unknown>,
  ) {}

  /** @internal */
  started(acknowledged: Promise<unknown>): void {
    this.#acknowledged = acknowledged;
  }

  /** Resolves when every peer that was connected when this began (or, after close(), ended) has applied it. */
  async acknowledged(): Promise<void> {
    await this.#acknowledged;
  }

  /** @internal */
  deliver(delivery: Delivery): void {
    this.#queue.push(delivery);
    this.#serve();
  }

  #serve(): void {
    while (!this.#paused && this.#queue.length > 0) {
      const reader = this.#readers.shift();
      if (reader === undefined) return;
      const delivery = this.#queue.shift()!;
      delivery.release();
      reader({ done: false, value: delivery.event as ReceivedEvent<T> });
    }
  }

  next(): Promise<Next<T>> {
    return new Promise((resolve) => {
      if (this.#closed) {
        resolve({ done: true, value: undefined });
        return;
      }
      this.#readers.push(resolve);
      this.#serve();
    });
  }

  /** Events that have arrived and were not fetched yet. */
  get waiting(): number {
    return this.#queue.length;
  }

  /** Give out nothing until resume(), also to a next() that waits already; credit stays where it is. */
  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#serve();
  }

  /** Unsubscribe. Events that wait are dropped, their credit goes back; loops over this subscription end. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const delivery of this.#queue.clear()) delivery.release();
    for (const reader of this.#readers.clear()) reader({ done: true, value: undefined });
    this.#acknowledged = this.onClose(this);
  }

  return(): Promise<Next<T>> {
    this.close();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
