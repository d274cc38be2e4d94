/** Builds messages with capnp-es. */

import { Message, type Struct, type StructCtor } from "capnp-es";
import type { Piece } from "../wire/frame.js";
import { frameSize } from "../wire/frame.js";

export interface BuiltMessage {
  readonly segments: readonly Piece[];
  /** Bytes of the frame that carries it. */
  readonly size: number;
}

/** Build a message whose root `fill` sets. */
export function buildMessage<T extends Struct>(type: StructCtor<T>, fill: (root: T) => void): BuiltMessage {
  const message = new Message();
  // capnp-es counts every access while building against the limit that guards reading, 64 MiB at 8 bytes each: a
  // list of nine million numbers could not be filled.
  message._capnp.traversalLimit = Number.POSITIVE_INFINITY;
  fill(message.initRoot(type));
  // byteLength counts what is allocated; capnp-es pads it to words.
  const segments = message._capnp.segments.map(({ buffer, byteLength }) => ({ buffer, byteLength }));
  return { segments, size: frameSize(segments) };
}
