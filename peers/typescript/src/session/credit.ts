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
