/** What waits to be written to one peer, and in which order it may go. */

import { encodeControl, type Control } from "../wire/control.js";
import type { SendWindow } from "./credit.js";
import { Queue } from "./queue.js";

interface EventItem {
  readonly typeId: bigint;
  readonly frame: Uint8Array;
}

export interface RequestItem {
  /** With CORRELATION still to be set. */
  readonly frame: Uint8Array;
  /** Called with the number of the request when it is handed to the stream. */
  readonly sent: (number: bigint) => void;
}

interface Waiting extends EventItem {
  readonly room: () => void;
}

/**
 * Control messages go first, then responses, then requests, then events: these overtake what has no credit. Of the
 * answers that cost no credit one of each is enough, made when it can be written; so none of them can pile up.
 */
export class Outbox {
  readonly #control = new Queue<Uint8Array>();
  readonly #responses = new Queue<Uint8Array>();
  readonly #requests = new Queue<RequestItem>();
  readonly #events = new Queue<EventItem>();
  /** Events that found the queue full, in order. */
  readonly #waiting = new Queue<Waiting>();
  /** How many events of each type are queued or wait for room. */
  readonly #counts = new Map<bigint, number>();
  #bytes = 0;
  #requestBytes = 0;
  #lastRequest = 0n;
  sentEvents = 0;
  requestsWindow: SendWindow | null = null;
  eventsWindow: SendWindow | null = null;

  /** @param capacity Bytes of events that may wait, and of requests. */
  constructor(
    private readonly capacity: number,
    /** A pong, an acknowledgement, or credit that is owed; null if none is. */
    private readonly owed: () => Control | null,
  ) {}

  /** The number of the last request that was handed to the stream. */
  get lastRequest(): bigint {
    return this.#lastRequest;
  }

  get full(): boolean {
    return this.#bytes >= this.capacity;
  }

  /** Requests overtake events, and have room of their own. */
  get fullOfRequests(): boolean {
    return this.#requestBytes >= this.capacity;
  }

  /** Something waits for room. */
  get overfull(): boolean {
    return this.#waiting.length > 0;
  }

  get queuedBytes(): number {
    return this.#bytes;
  }

  get queuedEvents(): number {
    return this.#events.length + this.#waiting.length;
  }

  get empty(): boolean {
    return this.#control.length + this.#responses.length + this.#requests.length + this.queuedEvents === 0;
  }

  control(message: Control): void {
    this.#control.push(encodeControl(message));
  }

  response(frame: Uint8Array): void {
    this.#responses.push(frame);
  }

  request(item: RequestItem): void {
    this.#requests.push(item);
    this.#requestBytes += item.frame.length;
  }

  /** Forget a request that was not sent yet. */
  withdraw(item: RequestItem): void {
    if (this.#requests.remove((other) => other !== item).length > 0) this.#requestBytes -= item.frame.length;
  }

  #counted(typeId: bigint, change: number): void {
    const count = (this.#counts.get(typeId) ?? 0) + change;
    if (count === 0) this.#counts.delete(typeId);
    else this.#counts.set(typeId, count);
  }

  get queuedTypes(): bigint[] {
    return [...this.#counts.keys()];
  }

  hasQueued(typeId: bigint): boolean {
    return this.#counts.has(typeId);
  }

  /** Queue an event; if there is no room, `room` is called when there was. Says whether there was room at once. */
  event(typeId: bigint, frame: Uint8Array, room: () => void): boolean {
    this.#counted(typeId, 1);
    if (this.full || this.overfull) {
      this.#waiting.push({ typeId, frame, room });
      return false;
    }
    this.#events.push({ typeId, frame });
    this.#bytes += frame.length;
    return true;
  }

  /** Drop the events of types that are no longer wanted. */
  purge(wanted: (typeId: bigint) => boolean): void {
    for (const { typeId, room } of this.#waiting.remove((item) => wanted(item.typeId))) {
      this.#counted(typeId, -1);
      room();
    }
    for (const { typeId, frame } of this.#events.remove((item) => wanted(item.typeId))) {
      this.#counted(typeId, -1);
      this.#took(frame.length);
    }
  }

  /** Drop everything, and let those who wait go on. Says how many events were not sent. */
  clear(): number {
    const lost = this.queuedEvents;
    this.#control.clear();
    this.#responses.clear();
    this.#requests.clear();
    this.#events.clear();
    this.#counts.clear();
    this.#bytes = 0;
    this.#requestBytes = 0;
    for (const { room } of this.#waiting.clear()) room();
    return lost;
  }

  #took(bytes: number): void {
    this.#bytes -= bytes;
    while (!this.full) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      this.#events.push(next);
      this.#bytes += next.frame.length;
      next.room();
    }
  }

  /** The next frame that may be written now, charged; null if there is none. */
  next(): Uint8Array | null {
    const frame = this.#control.shift();
    if (frame !== undefined) return frame;
    const owed = this.owed();
    if (owed !== null) return encodeControl(owed);
    return this.#responses.shift() ?? this.#nextRequest() ?? this.#nextEvent();
  }

  #nextRequest(): Uint8Array | null {
    if (this.requestsWindow?.open !== true) return null;
    const item = this.#requests.shift();
    if (item === undefined) return null;
    this.#lastRequest += 1n;
    Buffer.from(item.frame.buffer, item.frame.byteOffset).writeBigUInt64LE(this.#lastRequest, 8);
    this.requestsWindow.charge(item.frame.length);
    this.#requestBytes -= item.frame.length;
    item.sent(this.#lastRequest);
    return item.frame;
  }

  #nextEvent(): Uint8Array | null {
    if (this.eventsWindow?.open !== true) return null;
    const item = this.#events.shift();
    if (item === undefined) return null;
    this.eventsWindow.charge(item.frame.length);
    this.sentEvents += 1;
    this.#counted(item.typeId, -1);
    this.#took(item.frame.length);
    return item.frame;
  }
}
