/** What an endpoint can be told, and what it tells. */

import type { GoodbyeCode } from "../errors.js";
import type { EventType } from "../types.js";

export interface EndpointOptions {
  /** 1 to 100 of A-Z a-z 0-9 . _ -, a letter or digit first; nobody else on the bus may have it. */
  readonly name: string;
  /** 16 bytes, new for each start; made at random if left out. */
  readonly instance?: Uint8Array;
  /** For people who read another endpoint's log. */
  readonly implementation?: string;
  readonly version?: string;
  /** Largest frame of content that is accepted, bytes: 1,024 to 2^31 - 8. Default 64 MiB. */
  readonly frameLimit?: number;
  /** Bytes of events that each peer may have under way to us; 2^64 - 1 is unlimited. Default 16 MiB. */
  readonly eventCredit?: bigint;
  /** The same for requests. Default 4 MiB. */
  readonly requestCredit?: bigint;
  /** Ping a peer that was silent for so long; 0 never. Default 60,000. */
  readonly keepaliveMs?: number;
  /** Default 10,000. */
  readonly handshakeMs?: number;
  /** A peer that does not acknowledge subscriptions for so long is disconnected. Default 30,000. */
  readonly ackMs?: number;
  /** Bytes of events that may wait for one peer before a broadcast waits. Default 16 MiB. */
  readonly queueBytes?: number;
  /** A full peer that takes no event, and gives no credit back, for so long is disconnected. Default 5,000. */
  readonly tooSlowMs?: number;
  /** How long a request waits for its answer if it does not say. Default 30,000. */
  readonly requestTimeoutMs?: number;
  /** Told of everything that happens to peers, at once and in order. It must not throw. */
  readonly onChange?: (change: Change) => void;
}

export type Change =
  | { readonly is: "up"; readonly peer: string }
  | { readonly is: "down"; readonly peer: string; readonly code: EndCode; readonly byPeer: boolean; readonly text: string }
  /** A connection that ended before it was up. */
  | { readonly is: "refused"; readonly code: EndCode; readonly byPeer: boolean; readonly text: string }
  | { readonly is: "subscribed" | "unsubscribed"; readonly peer: string; readonly typeId: bigint }
  /** An event exceeded the peer's frame limit and was not sent to it; others got it. Sizes in bytes. */
  | { readonly is: "tooLarge"; readonly peer: string; readonly type: EventType; readonly size: number; readonly limit: number }
  /** The two sides hold different layouts of a type: it is not exchanged between them. */
  | { readonly is: "disabled"; readonly peer: string; readonly type: EventType; readonly difference: string };

/** "": the stream ended without a goodbye; a number: a code that is unknown here; null: one that cannot be read. */
export type EndCode = GoodbyeCode | number | "" | null;

export interface PeerStatus {
  readonly name: string;
  /** Events written to the stream. */
  readonly sentEvents: number;
  readonly queuedEvents: number;
  /** Events that wait for credit. */
  readonly waitingForCredit: boolean;
  /** Events that arrived for a subscription. */
  readonly receivedEvents: number;
  /** Events that arrived and nobody wanted. */
  readonly skipped: number;
  /** Answers that came when nobody waited for them any more. */
  readonly late: number;
}

export interface RequestOptions {
  /** Only this peer; else every peer that subscribes to the type. */
  readonly to?: string;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}
