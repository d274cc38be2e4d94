/** Requests of peers, and their answers. */

import type { Struct } from "capnp-es";
import { buildMessage } from "../capnp/build.js";
import { UnreadableError } from "../errors.js";
import type { Incoming } from "../session/owner.js";
import type { OwnTable } from "../session/table.js";
import type { EventType } from "../types.js";
import { encodeFrame, RESPONSE } from "../wire/frame.js";
import type { Connection } from "./connection.js";
import { ReceivedEvent } from "./subscription.js";

/** A request as its handler sees it. */
export class ReceivedRequest<Q extends Struct = Struct> extends ReceivedEvent<Q> {
  readonly #gone: () => AbortSignal;

  constructor(
    type: EventType<Q>,
    peer: string,
    incoming: Incoming,
    gone: () => AbortSignal,
  ) {
    super(type, peer, incoming.frame);
    this.number = incoming.number;
    this.#gone = gone;
  }

  /** The number of the request on its connection. */
  readonly number: bigint;

  /** Aborted when the requester is gone: no answer can reach it any more. */
  get signal(): AbortSignal {
    return this.#gone();
  }
}

export interface Service {
  /** Resolves when every peer that was connected has applied the subscription, or its end. */
  acknowledged(): Promise<void>;
  /** Start no handler until resume(): requests wait, and so does their credit. */
  pause(): void;
  resume(): void;
  /** Stop to answer; handlers that run end as they like. */
  close(): void;
}

/**
 * Gives what fills the answer, or throws. A promise that never settles leaves the request open; the requester has a
 * timeout.
 */
export type RequestHandler<Q extends Struct, A extends Struct> = (
  request: ReceivedRequest<Q>,
) => ((answer: A) => void) | Promise<(answer: A) => void>;

export type Handler = (connection: Connection, peer: string, own: OwnTable, incoming: Incoming) => void;

/** Holds requests back while it is paused. */
export class Gate {
  #waiting: (() => void)[] | null = null;

  pass(start: () => void): void {
    if (this.#waiting === null) start();
    else this.#waiting.push(start);
  }

  pause(): void {
    this.#waiting ??= [];
  }

  resume(): void {
    const waiting = this.#waiting ?? [];
    this.#waiting = null;
    for (const start of waiting) start();
  }
}

export function handle<Q extends Struct, A extends Struct>(
  type: EventType<Q>,
  answer: EventType<A>,
  handler: RequestHandler<Q, A>,
): Handler {
  return (connection, peer, own, incoming) => {
    const { session } = connection;
    let gone: AbortController | null = null;
    const request = new ReceivedRequest(type, peer, incoming, () => {
      if (gone === null) {
        gone = new AbortController();
        const controller = gone;
        void connection.closed.then(() => controller.abort());
      }
      return gone.signal;
    });
    const run = async (): Promise<void> => {
      try {
        const fill = await handler(request);
        if (!session.isOpen(request.number)) return;
        const plain: EventType = answer;
        const difference = session.table.difference(plain);
        if (difference !== null) {
          session.fail(request.number, "incompatibleType", "", difference);
          return;
        }
        session.declare([plain]);
        const { segments, size } = buildMessage(answer.struct, fill);
        const limit = session.peer!.frameLimit;
        if (size > limit) {
          session.fail(request.number, "handlerRaised", "FrameTooLarge", `an answer of ${size} bytes; the limit is ${limit}`);
        } else {
          session.respond(request.number, encodeFrame(own.numberOf(plain), RESPONSE, request.number, segments));
        }
      } catch (error) {
        const code = error instanceof UnreadableError ? "unreadable" : "handlerRaised";
        const { name, message } = error instanceof Error ? error : { name: typeof error, message: String(error) };
        session.fail(request.number, code, name, message);
      }
    };
    void run().then(() => connection.wake());
    session.requestTaken(incoming.frame.size);
    connection.wake();
  };
}
