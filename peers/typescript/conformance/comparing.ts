/** Compares JSON values, and control messages as JSON. */

import type { Control, Row } from "../src/wire/control.js";
import type { Json } from "./values.js";

/** Throw an Error that says where two values first differ. */
export function same(got: unknown, wanted: unknown, where = ""): void {
  if (Array.isArray(wanted) && Array.isArray(got)) {
    if (got.length !== wanted.length) throw new Error(`${where}: ${got.length} elements, wanted ${wanted.length}`);
    wanted.forEach((part, i) => same(got[i], part, `${where}[${i}]`));
  } else if (isObject(wanted) && isObject(got)) {
    const keys = Object.keys(wanted).sort();
    const have = Object.keys(got).sort();
    if (keys.join() !== have.join()) throw new Error(`${where}: fields ${have.join()}, wanted ${keys.join()}`);
    for (const key of keys) same(got[key], wanted[key], `${where}.${key}`);
  } else if (got !== wanted) {
    throw new Error(`${where}: ${show(got)}, wanted ${show(wanted)}`);
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function show(value: unknown): string {
  return (JSON.stringify(value) ?? String(value)).slice(0, 300);
}

function rowValue(row: Row): Json {
  const { wireId, kind, typeId, name, layout } = row;
  return { wireId, kind, typeId: String(typeId), name, layout: [...layout] };
}

const strings = (ids: readonly bigint[]): Json => ids.map(String);

/** A control message as a value of Control, one member; its own fields beside it are those of wire.capnp. */
export function controlValue(message: Control): { variant: string; fields: Json } {
  switch (message.is) {
    case "hello": {
      const { is, instance, eventCredit, requestCredit, features, types, ...rest } = message;
      const fields = {
        protocolVersion: 1,
        ...rest,
        instance: Buffer.from(instance).toString("hex"),
        eventCredit: String(eventCredit),
        requestCredit: String(requestCredit),
        features: [...features],
        types: types.map(rowValue),
      };
      return { variant: is, fields };
    }
    case "declare":
      return { variant: message.is, fields: { types: message.types.map(rowValue) } };
    case "subscriptions": {
      const { is, sequence, add, remove, all, ackWanted } = message;
      return { variant: is, fields: { sequence: String(sequence), add: strings(add), remove: strings(remove), all, ackWanted } };
    }
    case "subscriptionsAck":
      return { variant: message.is, fields: { sequence: String(message.sequence) } };
    case "credit":
      return { variant: message.is, fields: { events: String(message.events), requests: String(message.requests) } };
    case "failed": {
      const { is, correlation, code, typeName, text } = message;
      return { variant: is, fields: { correlation: String(correlation), code, typeName, text } };
    }
    case "dropped": {
      const counts = message.counts.map(({ typeId, count }) => ({ typeId: String(typeId), count: String(count) }));
      return { variant: message.is, fields: { counts } };
    }
    case "goodbye":
      return { variant: message.is, fields: { code: message.code, text: message.text } };
    default:
      return { variant: message.is, fields: null };
  }
}
