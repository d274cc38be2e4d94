/** The control messages of wire.capnp as plain values: read strictly, written with capnp-es. */

import * as schema from "../../generated/wire.js";
import { buildMessage } from "../capnp/build.js";
import { FAILED_CODES, GOODBYE_CODES, ProtocolError, UnreadableError } from "../errors.js";
import type { FailedCode, GoodbyeCode } from "../errors.js";
import { encodeFrame } from "./frame.js";
import { PROTOCOL_VERSION } from "./limits.js";
import { Segments } from "./pointers.js";
import { readRoot, type StructReader } from "./reader.js";

export interface Row {
  /** 1..65535; 0: a struct that is reachable from an event type and has no number (yet). */
  readonly wireId: number;
  readonly typeId: bigint;
  /** A number: a kind that is unknown here. */
  readonly kind: "struct" | "opaque" | number;
  readonly name: string;
  readonly layout: readonly number[];
}

export interface Hello {
  readonly name: string;
  readonly instance: Uint8Array;
  readonly implementation: string;
  readonly version: string;
  readonly frameLimit: number;
  readonly keepaliveMs: number;
  readonly eventCredit: bigint;
  readonly requestCredit: bigint;
  readonly features: readonly string[];
  readonly types: readonly Row[];
}

export interface Subscriptions {
  readonly sequence: bigint;
  readonly add: readonly bigint[];
  readonly remove: readonly bigint[];
  readonly all: boolean;
  readonly ackWanted: boolean;
}

export interface Failed {
  readonly correlation: bigint;
  /** A number: a code that is unknown here. */
  readonly code: FailedCode | number;
  readonly typeName: string;
  readonly text: string;
}

export type Control =
  | ({ readonly is: "hello" } & Hello)
  | { readonly is: "declare"; readonly types: readonly Row[] }
  | ({ readonly is: "subscriptions" } & Subscriptions)
  | { readonly is: "subscriptionsAck"; readonly sequence: bigint }
  | { readonly is: "credit"; readonly events: bigint; readonly requests: bigint }
  | ({ readonly is: "failed" } & Failed)
  | { readonly is: "ping" }
  | { readonly is: "pong" }
  | { readonly is: "dropped"; readonly counts: readonly { readonly typeId: bigint; readonly count: bigint }[] }
  /** code: null if it cannot be read, a number if it is unknown here. */
  | { readonly is: "goodbye"; readonly code: GoodbyeCode | number | null; readonly text: string };

const KINDS = ["struct", "opaque"] as const;

function readRows(rows: readonly StructReader[]): Row[] {
  return rows.map((row) => {
    const kind = row.u16(2);
    return {
      wireId: row.u16(0),
      kind: KINDS[kind] ?? kind,
      typeId: row.u64(8),
      name: row.text(0),
      layout: row.u32s(1),
    };
  });
}

// Offsets in bytes and indices of pointers are those that `capnp compile -ocapnp wire.capnp` prints.
function readVariant(control: StructReader): Control {
  const variant = control.u16(0);
  const body = variant === 6 || variant === 7 ? control : control.struct(0);
  switch (variant) {
    case 0: {
      const version = body.u16(0);
      if (version !== PROTOCOL_VERSION) {
        throw new ProtocolError(
          "unsupportedVersion",
          `the peer speaks version ${version} of the protocol, this endpoint version ${PROTOCOL_VERSION}`,
        );
      }
      return {
        is: "hello",
        name: body.text(0),
        instance: body.data(1),
        implementation: body.text(2),
        version: body.text(3),
        frameLimit: body.u32(4),
        keepaliveMs: body.u32(8),
        eventCredit: body.u64(16),
        requestCredit: body.u64(24),
        features: body.texts(4),
        types: readRows(body.structs(5)),
      };
    }
    case 1:
      return { is: "declare", types: readRows(body.structs(0)) };
    case 2:
      return {
        is: "subscriptions",
        sequence: body.u64(0),
        add: body.u64s(0),
        remove: body.u64s(1),
        all: body.bool(64),
        ackWanted: body.bool(65),
      };
    case 3:
      return { is: "subscriptionsAck", sequence: body.u64(0) };
    case 4:
      return { is: "credit", events: body.u64(0), requests: body.u64(8) };
    case 5: {
      const code = body.u16(8);
      return {
        is: "failed",
        correlation: body.u64(0),
        code: FAILED_CODES[code] ?? code,
        typeName: body.text(0),
        text: body.text(1),
      };
    }
    case 6:
      return { is: "ping" };
    case 7:
      return { is: "pong" };
    case 8:
      return { is: "dropped", counts: body.structs(0).map((one) => ({ typeId: one.u64(0), count: one.u64(8) })) };
    default:
      throw new ProtocolError("unknownControl", `the peer sent variant ${variant} of Control, which is unknown here`);
  }
}

// The end of a connection is one however it is written.
function readGoodbye(control: StructReader): Control {
  let code: GoodbyeCode | number | null = null;
  let text = "";
  try {
    const body = control.struct(0);
    const number = body.u16(0);
    code = GOODBYE_CODES[number] ?? number;
    text = body.text(0);
  } catch (error) {
    if (!(error instanceof UnreadableError)) throw error;
  }
  return { is: "goodbye", code, text };
}

/** Read the message of a control frame, or throw the ProtocolError that ends the connection. */
export function decodeControl(segments: readonly ArrayBuffer[]): Control {
  try {
    const control = readRoot(new Segments(segments));
    return control.u16(0) === 9 ? readGoodbye(control) : readVariant(control);
  } catch (error) {
    if (!(error instanceof UnreadableError)) throw error;
    throw new ProtocolError("protocolError", `the peer sent a control message that cannot be read: ${error.message}`);
  }
}

function fillRows(list: { get(index: number): schema.TypeRow }, rows: readonly Row[]): void {
  rows.forEach((row, i) => {
    const built = list.get(i);
    built.wireId = row.wireId;
    built.kind = row.kind === "opaque" ? 1 : 0;
    built.typeId = row.typeId;
    built.name = row.name;
    const layout = built._initLayout(row.layout.length);
    row.layout.forEach((hash, k) => layout.set(k, hash));
  });
}

function fillIds(list: { set(index: number, value: bigint): void }, ids: readonly bigint[]): void {
  ids.forEach((id, i) => list.set(i, id));
}

function fill(control: schema.Control, message: Control): void {
  switch (message.is) {
    case "hello": {
      const hello = control._initHello();
      hello.protocolVersion = PROTOCOL_VERSION;
      hello.name = message.name;
      hello._initInstance(message.instance.length).copyBuffer(message.instance);
      hello.implementation = message.implementation;
      hello.version = message.version;
      hello.frameLimit = message.frameLimit;
      hello.keepaliveMs = message.keepaliveMs;
      hello.eventCredit = message.eventCredit;
      hello.requestCredit = message.requestCredit;
      const features = hello._initFeatures(message.features.length);
      message.features.forEach((feature, i) => features.set(i, feature));
      fillRows(hello._initTypes(message.types.length), message.types);
      break;
    }
    case "declare":
      fillRows(control._initDeclare()._initTypes(message.types.length), message.types);
      break;
    case "subscriptions": {
      const subscriptions = control._initSubscriptions();
      subscriptions.sequence = message.sequence;
      fillIds(subscriptions._initAdd(message.add.length), message.add);
      fillIds(subscriptions._initRemove(message.remove.length), message.remove);
      subscriptions.all = message.all;
      subscriptions.ackWanted = message.ackWanted;
      break;
    }
    case "subscriptionsAck":
      control._initSubscriptionsAck().sequence = message.sequence;
      break;
    case "credit": {
      const credit = control._initCredit();
      credit.events = message.events;
      credit.requests = message.requests;
      break;
    }
    case "failed": {
      const failed = control._initFailed();
      failed.correlation = message.correlation;
      failed.code = (typeof message.code === "number" ? message.code : FAILED_CODES.indexOf(message.code)) as never;
      failed.typeName = message.typeName;
      failed.text = message.text;
      break;
    }
    case "ping":
      control.ping = true;
      break;
    case "pong":
      control.pong = true;
      break;
    case "dropped": {
      const counts = control._initDropped()._initCounts(message.counts.length);
      message.counts.forEach(({ typeId, count }, i) => {
        const built = counts.get(i);
        built.typeId = typeId;
        built.count = count;
      });
      break;
    }
    case "goodbye": {
      const goodbye = control._initGoodbye();
      const { code } = message;
      goodbye.code = (typeof code === "string" ? GOODBYE_CODES.indexOf(code) : (code ?? 0)) as never;
      goodbye.text = message.text;
      break;
    }
  }
}

/** The whole frame of a control message. */
export function encodeControl(message: Control): Uint8Array {
  const { segments } = buildMessage(schema.Control, (control) => fill(control, message));
  return encodeFrame(0, 0, 0n, segments);
}

/** Shorten a text to so many bytes of UTF-8, between two characters. */
export function cutText(text: string, bytes: number): string {
  const encoded = Buffer.from(text, "utf8");
  if (encoded.length <= bytes) return encoded.toString("utf8");
  let end = bytes;
  while (end > 0 && (encoded[end]! & 0xc0) === 0x80) end -= 1;
  return encoded.toString("utf8", 0, end);
}
