/** A request under way to one peer or several. */

import type { Struct } from "capnp-es";
import type { BuiltMessage } from "../capnp/build.js";
import { RequestFailed, RequestLost, RequestTimeout } from "../errors.js";
import type { EventType } from "../types.js";
import { encodeFrame, REQUEST } from "../wire/frame.js";
import type { Link } from "./endpoint.js";
import { ReceivedEvent } from "./subscription.js";

/** Send it to all of these, and wait for the first response. */
export function ask<A extends Struct>(
  receivers: readonly Link[],
  wireId: number,
  message: BuiltMessage,
  typeName: string,
  answer: EventType<A>,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<ReceivedEvent<A>> {
  return new Promise((resolve, reject) => {
    const forget: (() => void)[] = [];
    let left = receivers.length;
    let failure: RequestFailed | null = null;
    const finish = (end: () => void): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      for (const one of forget) one();
      end();
    };
    const abort = (): void => finish(() => reject(signal!.reason as Error));
    const names = receivers.map(({ name }) => name).join(", ");
    const timer = setTimeout(() => {
      finish(() => reject(new RequestTimeout(`${names} did not answer ${typeName} within ${timeoutMs} ms`)));
    }, timeoutMs);
    const failed = (error: RequestFailed | null): void => {
      failure ??= error;
      left -= 1;
      if (left > 0) return;
      finish(() => reject(failure ?? new RequestLost(`${names} went away with ${typeName} unanswered`)));
    };
    if (signal?.aborted === true) {
      abort();
      return;
    }
    signal?.addEventListener("abort", abort);
    for (const { name, connection } of receivers) {
      const { session } = connection;
      const limit = session.peer!.frameLimit;
      if (message.size > limit) {
        failed(new RequestFailed("handlerRaised", "FrameTooLarge", `${message.size} bytes; the limit is ${limit}`, name));
        continue;
      }
      if (session.outbox.fullOfRequests) {
        failed(new RequestFailed("overloaded", "", "too many requests wait for this peer's credit", name));
        continue;
      }
      // A number is the connection's own: each peer gets a frame of its own.
      const frame = encodeFrame(wireId, REQUEST, 1n, message.segments);
      const cancel = session.request(frame, {
        answered: (typeId, response) => {
          if (typeId === answer.typeId) finish(() => resolve(new ReceivedEvent(answer, name, response)));
          else failed(new RequestFailed("", "", `the answer is of the type 0x${(typeId ?? 0n).toString(16)}`, name));
        },
        failed: ({ code, typeName: raised, text }) => failed(new RequestFailed(code, raised, text, name)),
        lost: () => failed(null),
      });
      forget.push(cancel);
      connection.wake();
    }
  });
}

