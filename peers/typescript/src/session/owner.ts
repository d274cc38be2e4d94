/** What a session is told, and whom it tells. */

import type { GoodbyeCode } from "../errors.js";
import type { EventType } from "../types.js";
import type { Failed, Hello } from "../wire/control.js";
import type { Frame } from "../wire/frame.js";

export interface SessionSettings {
  readonly role: "connector" | "acceptor";
  readonly name: string;
  readonly instance: Uint8Array;
  readonly implementation: string;
  readonly version: string;
  /** Of the peer; only for a connector. */
  readonly expected: string | null;
  readonly frameLimit: number;
  readonly eventCredit: bigint;
  readonly requestCredit: bigint;
  readonly keepaliveMs: number;
  readonly keepaliveMisses: number;
  readonly handshakeMs: number;
  readonly ackMs: number;
  readonly goodbyeMs: number;
  readonly queueBytes: number;
}

/** How a connection ended. */
export interface End {
  /** Of the goodbye, the peer's or ours; "" if the stream ended without one. */
  readonly code: GoodbyeCode | number | "" | null;
  readonly byPeer: boolean;
  readonly text: string;
}

/** A request that arrived. */
export interface Incoming {
  readonly number: bigint;
  readonly type: EventType;
  readonly frame: Frame;
}

/** A request of ours; it ends in exactly one of these calls, or in none if it is forgotten. */
export interface Ticket {
  answered(typeId: bigint | undefined, frame: Frame): void;
  failed(failed: Omit<Failed, "correlation">): void;
  lost(): void;
}

/** Who has the session. */
export interface Owner {
  /** The type with this id, if something is bound to it here. */
  typeOf(typeId: bigint): EventType | undefined;
  subscribes(typeId: bigint): boolean;
  serves(typeId: bigint): boolean;
  /** The peer's hello is valid: decide, then call accept() or goodbye(). */
  hello(hello: Hello): void;
  up(): void;
  peerSubscriptions(added: readonly bigint[], removed: readonly bigint[], all: boolean): void;
  acknowledged(sequence: bigint): void;
  event(type: EventType, frame: Frame): void;
  request(incoming: Incoming): void;
  /** A type is disabled between the two endpoints; said once for each reason. */
  disabled(type: EventType, difference: string): void;
  /** The session has decided to end, or its peer has. */
  ended(end: End): void;
}
