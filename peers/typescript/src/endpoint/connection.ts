/** A session on a stream: what reads, writes and sleeps. */

import type { Duplex } from "node:stream";
import type { GoodbyeCode } from "../errors.js";
import type { Owner, SessionSettings } from "../session/owner.js";
import { Session } from "../session/session.js";
import type { OwnTable } from "../session/table.js";
import type { EventType } from "../types.js";

export function now(): number {
  return performance.now();
}

/** Bytes that are handed to the stream at a time. */
const PIECE_BYTES = 262_144;

export class Connection {
  readonly session: Session;
  /** Resolves when the stream is closed. */
  readonly closed: Promise<void>;
  #close!: () => void;
  /** The stream has taken more than it wants to hold: it says when there is room. */
  #blocked = false;
  #ending = false;
  #isClosed = false;
  #scheduled = false;
  #timer: NodeJS.Timeout | null = null;
  #timerAt = Number.POSITIVE_INFINITY;
  /**
   * When the peer last took something of the events that wait, in that bytes of them were handed to the stream or credit
   * came back; or when the first of those that wait found the queue full.
   */
  #progress = now();
  #creditReturns = 0;
  /** What is left of a frame that is written in pieces, and whether that is an event. */
  #rest: Uint8Array | null = null;
  #restIsEvent = false;
  #acknowledgements: { sequence: bigint; done: () => void }[] = [];
  #probes: (() => void)[] = [];

  constructor(
    readonly stream: Duplex,
    settings: SessionSettings,
    owner: (connection: Connection) => Owner,
    own: OwnTable,
    hello: Iterable<EventType>,
    private readonly tooSlowMs: number,
  ) {
    this.closed = new Promise((resolve) => (this.#close = resolve));
    const inner = owner(this);
    this.session = new Session(
      settings,
      {
        ...inner,
        acknowledged: (sequence) => this.#acknowledged(sequence),
        ended: (end) => {
          this.#acknowledged(null);
          inner.ended(end);
        },
      },
      own,
      hello,
      now(),
    );
    stream.on("data", (chunk: Uint8Array) => this.#received(chunk));
    stream.on("drain", () => {
      this.#blocked = false;
      this.#after();
    });
    // A stream without a reader of its errors would end the process.
    stream.on("error", () => this.#lost());
    stream.on("end", () => this.#lost());
    stream.on("close", () => this.#lost());
    this.wake();
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  #received(chunk: Uint8Array): void {
    if (this.#isClosed) return;
    this.session.receive(chunk, now());
    for (const heard of this.#probes.splice(0)) heard();
    if (this.session.backlogFull) this.stream.pause();
    const { creditReturns } = this.session;
    if (creditReturns !== this.#creditReturns) this.#progress = now();
    this.#creditReturns = creditReturns;
    this.#after();
  }

  #lost(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.session.endOfStream();
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.stream.destroy();
    this.#close();
  }

  /** Write what can be written, soon: everything that the running code still queues goes with it. */
  wake(): void {
    if (this.#scheduled || this.#isClosed) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#after();
    });
  }

  #after(): void {
    if (this.#isClosed) return;
    if (this.session.end?.byPeer === true) {
      this.#lost();
      return;
    }
    this.#pump();
    this.#arm();
  }

  #pump(): void {
    if (this.#ending || this.#isClosed) return;
    if (!this.#blocked) {
      this.stream.cork();
      for (let piece = this.#next(); piece !== null; piece = this.#next()) {
        if (!this.stream.write(piece)) {
          this.#blocked = true;
          break;
        }
      }
      this.stream.uncork();
    } else if (this.session.end !== null) {
      // The goodbye goes behind what the stream holds: it is the last frame, so nothing piles up.
      for (let piece = this.#next(); piece !== null; piece = this.#next()) this.stream.write(piece);
    }
    if (this.session.saidGoodbye) {
      this.#ending = true;
      this.stream.end();
    }
  }

  /** What to write next. A large frame goes in pieces, so that a peer that reads slowly is seen to read. */
  #next(): Uint8Array | null {
    if (this.#rest === null) {
      const { sentEvents } = this.session.outbox;
      this.#rest = this.session.next();
      this.#restIsEvent = this.session.outbox.sentEvents !== sentEvents;
    }
    const frame = this.#rest;
    if (frame === null) return null;
    if (this.#restIsEvent) this.#progress = now();
    const isLarge = frame.length > PIECE_BYTES;
    this.#rest = isLarge ? frame.subarray(PIECE_BYTES) : null;
    return isLarge ? frame.subarray(0, PIECE_BYTES) : frame;
  }

  #arm(): void {
    const deadline = this.session.deadline;
    const slow = this.session.outbox.overfull ? this.#progress + this.tooSlowMs : Number.POSITIVE_INFINITY;
    const at = Math.min(deadline ?? Number.POSITIVE_INFINITY, slow);
    // A timer that fires too early costs less than a new one for each chunk.
    if (at >= this.#timerAt) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timerAt = at;
    const delay = Math.min(Math.max(at - now(), 0) + 1, 2 ** 31 - 1);
    // The loop reads the sockets between its timers and its immediates: what is readable is read before a judgement.
    this.#timer = setTimeout(() => setImmediate(() => this.#tick()), delay);
  }

  #tick(): void {
    this.#timer = null;
    this.#timerAt = Number.POSITIVE_INFINITY;
    if (this.#isClosed) return;
    if (this.session.tick(now())) {
      this.#lost();
      return;
    }
    const { overfull, queuedBytes } = this.session.outbox;
    if (overfull && this.session.end === null && now() >= this.#progress + this.tooSlowMs) {
      this.goodbye("tooSlow", `took no event for ${this.tooSlowMs} ms while ${queuedBytes} bytes were queued`);
    }
    this.#after();
  }

  goodbye(code: GoodbyeCode, text: string): void {
    this.session.goodbye(code, text, now());
    this.wake();
  }

  /** Wait until everything queued is written, `timeoutMs` at most. */
  async flushed(timeoutMs: number): Promise<void> {
    const until = now() + timeoutMs;
    this.wake();
    while (!this.#isClosed && this.session.end === null && now() < until) {
      if (this.session.outbox.empty && this.#rest === null && this.stream.writableLength === 0) return;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** Take the peer. */
  accept(types: Iterable<EventType>, all: boolean): void {
    this.session.accept(types, all, now());
    if (this.stream.isPaused()) this.stream.resume();
    this.wake();
  }

  /** Change our subscriptions; resolves when the peer has applied them, or is gone. */
  async subscribe(add: readonly EventType[], remove: readonly EventType[], all: boolean): Promise<void> {
    if (!this.session.isAccepted) return;
    const sequence = this.session.subscribe(add, remove, all, now());
    this.wake();
    await new Promise<void>((done) => this.#acknowledgements.push({ sequence, done }));
  }

  #acknowledged(sequence: bigint | null): void {
    const over = sequence ?? 2n ** 64n;
    this.#acknowledgements = this.#acknowledgements.filter((waiting) => {
      if (waiting.sequence <= over) waiting.done();
      return waiting.sequence > over;
    });
  }

  /** Whether a byte arrives within so many milliseconds after a ping. */
  async answers(timeoutMs: number): Promise<boolean> {
    if (this.#isClosed) return false;
    this.session.ping();
    this.wake();
    return await new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => setImmediate(() => resolve(false)), timeoutMs);
      this.#probes.push(() => {
        clearTimeout(timer);
        resolve(true);
      });
      void this.closed.then(() => {
        clearTimeout(timer);
        resolve(false);
      });
    });
  }

  /** Resolves when the event is queued. */
  send(typeId: bigint, frame: Uint8Array): Promise<void> | null {
    let done!: () => void;
    const room = new Promise<void>((resolve) => (done = resolve));
    const { outbox } = this.session;
    // The patience with a full peer begins when it is found full, not when it was last written to.
    if (!outbox.overfull) this.#progress = now();
    const queued = outbox.event(typeId, frame, () => done());
    this.wake();
    return queued ? null : room;
  }
}
