/** Credit: docs/wire.md section 8. All numbers are bytes of frame size. */

import { ProtocolError } from "../errors.js";
import { MAX_BALANCE, UNLIMITED } from "../wire/limits.js";

/** What may be sent to the peer. */
export class SendWindow {
  #balance: bigint;
  readonly #unlimited: boolean;

  constructor(granted: bigint) {
    this.#balance = granted;
    this.#unlimited = granted === UNLIMITED;
  }

  get open(): boolean {
    return this.#unlimited || this.#balance > 0n;
  }

  charge(bytes: number): void {
    if (!this.#unlimited) this.#balance -= BigInt(bytes);
  }

  add(bytes: bigint): void {
    if (this.#unlimited) return;
    this.#balance += bytes;
    if (this.#balance > MAX_BALANCE) {
      throw new ProtocolError("protocolError", `credit of ${bytes} bytes lifts the balance above ${MAX_BALANCE}`);
    }
  }
}

/** What the peer may send, and what is to be given back to it. */
export class ReceiveWindow {
  #balance: bigint;
  #owed = 0n;
  readonly #unlimited: boolean;

  constructor(private readonly granted: bigint) {
    this.#balance = granted;
    this.#unlimited = granted === UNLIMITED;
  }

  /** Throws if a frame may not arrive now. */
  check(what: string): void {
    if (this.#unlimited || this.#balance > 0n) return;
    throw new ProtocolError(
      "creditExceeded",
      `${what} arrived while the balance is ${this.#balance}; the window is ${this.granted} bytes`,
    );
  }

  charge(bytes: number): void {
    if (!this.#unlimited) this.#balance -= BigInt(bytes);
  }

  /** The peer may send nothing now. */
  get usedUp(): boolean {
    return !this.#unlimited && this.#balance <= 0n;
  }

  /** Something has come back that the peer was not told of. */
  get owes(): boolean {
    return this.#owed > 0n;
  }

  giveBack(bytes: number): void {
    if (!this.#unlimited) this.#owed += BigInt(bytes);
  }

  /** Half of the window has come back: it must be sent. */
  get due(): boolean {
    return this.#owed > 0n && this.#owed * 2n >= this.granted;
  }

  /** What is owed, now that it is sent. */
  take(): bigint {
    const owed = this.#owed;
    this.#owed = 0n;
    this.#balance += owed;
    return owed;
  }
}

/**
 * Milliseconds after which a sender that may send nothing gets what is owed to it, however little: so it can tell a slow
 * receiver from one that takes nothing. docs/wire.md allows 1,000. Not at once: the consumer may be slow, and then each
 * event would cost a message.
 */
const CREDIT_REST_MS = 500;

/** Says when to look whether a sender waits for credit that is owed to it. */
export class CreditClock {
  #deadline: number | null = null;

  constructor(private readonly windows: readonly ReceiveWindow[]) {}

  get deadline(): number | null {
    return this.#deadline;
  }

  /** A window was charged. */
  charged(now: number): void {
    if (this.windows.some((window) => window.usedUp)) this.#deadline ??= now + CREDIT_REST_MS;
  }

  /** Whether credit must be sent now. */
  check(now: number): boolean {
    if (this.#deadline === null || now < this.#deadline) return false;
    this.#deadline = null;
    this.charged(now);
    return this.windows.some((window) => window.usedUp && window.owes);
  }
}
