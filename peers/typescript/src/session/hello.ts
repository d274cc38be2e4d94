/** The checks of a hello, in the order of docs/wire.md section 3; version and readability come before. */

import { ProtocolError } from "../errors.js";
import type { Hello } from "../wire/control.js";
import {
  INSTANCE_BYTES,
  MAX_BALANCE,
  MAX_FEATURES,
  MAX_FRAME_LIMIT,
  MIN_FRAME_LIMIT,
  NAME_PATTERN,
  SHORT_TEXT_BYTES,
  UNLIMITED,
} from "../wire/limits.js";
import type { SessionSettings } from "./owner.js";
import type { PeerTable } from "./table.js";

function refuse(text: string): never {
  throw new ProtocolError("protocolError", text);
}

export function isName(name: string): boolean {
  return NAME_PATTERN.test(name);
}

/** Throw what ends the connection; else put the rows into the table. */
export function checkHello(hello: Hello, settings: SessionSettings, table: PeerTable): void {
  const { name, instance, frameLimit } = hello;
  if (hello.features.length > MAX_FEATURES) {
    refuse(`hello lists ${hello.features.length} features; the limit is ${MAX_FEATURES}`);
  }
  if (!isName(name)) {
    throw new ProtocolError("invalidName", `"${name.slice(0, 120)}" is no name: 1 to 100 of A-Z a-z 0-9 . _ -, a letter or digit first`);
  }
  if (instance.length !== INSTANCE_BYTES) {
    refuse(`the instance in hello has ${instance.length} bytes, not ${INSTANCE_BYTES}`);
  }
  for (const [field, text] of [["implementation", hello.implementation], ["version", hello.version]] as const) {
    const bytes = Buffer.byteLength(text);
    if (bytes > SHORT_TEXT_BYTES) refuse(`${field} in hello has ${bytes} bytes; the limit is ${SHORT_TEXT_BYTES}`);
  }
  if (frameLimit < MIN_FRAME_LIMIT || frameLimit > MAX_FRAME_LIMIT) {
    refuse(`frameLimit in hello is ${frameLimit}; it must be ${MIN_FRAME_LIMIT} to ${MAX_FRAME_LIMIT}`);
  }
  if (Buffer.compare(instance, settings.instance) === 0) {
    throw new ProtocolError("duplicate", `${settings.name} has reached itself`);
  }
  if (settings.expected !== null && name !== settings.expected) {
    throw new ProtocolError("wrongName", `wanted to reach ${settings.expected}, but ${name} answered`);
  }
  table.add(hello.types);
  for (const [window, bytes] of [["eventCredit", hello.eventCredit], ["requestCredit", hello.requestCredit]] as const) {
    if (bytes > MAX_BALANCE && bytes !== UNLIMITED) {
      refuse(`${window} in hello is ${bytes}; it must be at most ${MAX_BALANCE}, or ${UNLIMITED}`);
    }
  }
}
