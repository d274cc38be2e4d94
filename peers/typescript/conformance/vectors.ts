/** Runs vectors; a failed one throws an Error that says what was wanted and what came. */

import { openMessage } from "../src/capnp/received.js";
import { buildMessage } from "../src/capnp/build.js";
import { UnreadableError } from "../src/errors.js";
import { type Control, decodeControl, encodeControl } from "../src/wire/control.js";
import { encodeFrame, type Frame, FrameDecoder } from "../src/wire/frame.js";
import * as wire from "../generated/wire.js";
import { controlValue, same, show } from "./comparing.js";
import { Consumer } from "./consumer.js";
import { FOLDERS, loadVectors, type Vector } from "./loading.js";
import { typeNamed } from "./plans.js";
import { buildValue, type Json, readValue } from "./values.js";

type JsonObject = { [key: string]: Json };

const KINDS = ["event", "request", "response"];
/** Frames of these kinds are compared one by one; others an implementation sends as it likes. */
const EXACT = [...KINDS, "failed", "goodbye"];
const FACTS = ["up", "event", "request", "answered", "failed", "lost", "closed"];
const PIECE = 4093;

function decodeOne(data: Uint8Array): Frame {
  const decoder = new FrameDecoder(2 ** 31, () => undefined);
  const { frame, end } = decoder.take(data, 0);
  if (frame === null || end !== data.length) throw new Error("not exactly one frame");
  return frame;
}

// --- messages, values, frames -----------------------------------------------------------------------------

function framed(message: Uint8Array): Uint8Array {
  const header = Buffer.alloc(16);
  header.writeUInt32LE(message.length + 12, 0);
  header.writeUInt16LE(1, 4);
  return Buffer.concat([header, message]);
}

function readMessage({ facts }: Vector, frame: Frame): Json {
  if (facts["schema"] !== "wire") {
    const name = facts["type"] as string;
    return readValue(name, openMessage(frame.segments, typeNamed(name).struct));
  }
  const opaque = openMessage(frame.segments, wire.Opaque);
  return { data: Buffer.from(opaque.data.toUint8Array()).toString("hex") };
}

function runMessage(vector: Vector): void {
  const { facts } = vector;
  const frame = decodeOne(framed(vector.data));
  same(frame.segments.length, facts["segments"], "segments");
  if (facts["unreadable"] !== true) {
    same(readMessage(vector, frame), facts["value"], "value");
    return;
  }
  try {
    readMessage(vector, frame);
  } catch (error) {
    if (!(error instanceof UnreadableError)) throw error;
  }
}

function rebuilt(type: string, value: Json): { frame: (kind: number, wireId: number, number: bigint) => Uint8Array } {
  const { segments } = buildMessage(typeNamed(type).struct, (root) => buildValue(type, root, value));
  return { frame: (kind, wireId, number) => encodeFrame(wireId, kind, number, segments) };
}

function runValue({ facts }: Vector): void {
  const name = facts["type"] as string;
  const again = decodeOne(rebuilt(name, facts["build"]!).frame(0, 1, 0n));
  same(readValue(name, openMessage(again.segments, typeNamed(name).struct)), facts["value"], "value");
}

function sameControl(message: Control, wanted: JsonObject): void {
  const { variant, fields } = controlValue(message);
  same({ [variant]: fields }, wanted, "control");
}

function runFrame({ facts, data }: Vector): void {
  const frame = decodeOne(data);
  const { kind, wireId, correlation, size, segments } = frame;
  same({ kind, wire_id: wireId, correlation: String(correlation), size, segments: segments.length }, {
    kind: facts["kind"]!,
    wire_id: facts["wire_id"]!,
    correlation: facts["correlation"]!,
    size: data.length,
    segments: facts["segments"]!,
  });
  if (kind === "control") {
    const message = decodeControl(segments);
    sameControl(message, facts["control"] as JsonObject);
    sameControl(decodeControl(decodeOne(encodeControl(message)).segments), facts["control"] as JsonObject);
    return;
  }
  const name = facts["type"] as string;
  const { struct } = typeNamed(name);
  same(readValue(name, openMessage(segments, struct)), facts["value"], "value");
  const written = rebuilt(name, facts["value"]!).frame(KINDS.indexOf(kind), wireId, correlation);
  if (Buffer.compare(written.subarray(4, 16), data.subarray(4, 16)) !== 0) throw new Error("the header is another one");
  same(readValue(name, openMessage(decodeOne(written).segments, struct)), facts["value"], "value written and read");
}

// --- conversations and refusals ---------------------------------------------------------------------------

async function runScript(vector: Vector, inPieces: boolean): Promise<void> {
  const { facts, data } = vector;
  const consumer = new Consumer(facts["role"]!, (facts["setup"] ?? {}) as Vector["facts"]);
  try {
    await consumer.settle();
    const piece = !inPieces ? Number.POSITIVE_INFINITY : data.length <= 10_000 ? 1 : PIECE;
    let at = 0;
    let found = 0;
    for (const [i, step] of (facts["script"] as JsonObject[]).entries()) {
      const where = `step ${i} ${show(step)}`;
      if (typeof step["send"] === "number") {
        const part = Buffer.from(data.subarray(at, at + step["send"]));
        at += step["send"];
        for (const patch of (step["patch"] ?? []) as JsonObject[]) applyPatch(part, patch, consumer);
        await consumer.receive(part, Math.min(piece, part.length || 1));
      } else if (step["await"] !== undefined) {
        found = find(consumer, step["await"] as JsonObject, found, where);
      } else if (typeof step["count"] === "string") {
        const sent = consumer.frames.filter((frame) => frame["sent"] === step["count"]).length;
        same(sent, step["is"], where);
      } else if (typeof step["do"] === "string") {
        await consumer.do(step["do"], step);
      } else if (step["eof"] === true) {
        await consumer.eof();
      } else {
        throw new Error(`${where}: unknown`);
      }
    }
    same(at, data.length, "bytes in the steps");
    compare(vector, consumer);
  } finally {
    await consumer.finish();
  }
}

function applyPatch(part: Buffer, patch: JsonObject, consumer: Consumer): void {
  const number =
    typeof patch["request"] === "number" ? consumer.requestNumbers[patch["request"] - 1]! : consumer.lastSequence;
  part.writeBigUInt64LE(BigInt.asUintN(64, number + BigInt((patch["plus"] ?? 0) as number)), patch["at"] as number);
}

function find(consumer: Consumer, match: JsonObject, start: number, where: string): number {
  for (let i = start; i < consumer.frames.length; i += 1) {
    if (matches(consumer.frames.slice(0, i + 1), match)) return i + 1;
  }
  const sent = consumer.frames.map((frame) => frame["sent"]);
  throw new Error(`${where}: not sent. Sent: ${sent.slice(0, start)}, then ${sent.slice(start)}; ${show(consumer.facts.at(-1))}`);
}

function matches(frames: readonly JsonObject[], match: JsonObject): boolean {
  const frame = frames.at(-1)!;
  if (frame["sent"] !== match["sent"]) return false;
  return Object.entries(match).every(([key, wanted]) => {
    if (key === "sent") return true;
    if (frame["sent"] === "credit") {
      const credits = frames.filter((other) => other["sent"] === "credit");
      return credits.reduce((sum, other) => sum + BigInt(other[key] as string), 0n) >= BigInt(wanted as string);
    }
    if (key === "add" || key === "remove") {
      const ids = new Set(frame[key] as string[]);
      return (wanted as string[]).every((name) => ids.has(String(typeNamed(name).typeId)));
    }
    if (key === "types") {
      const rows = (frame["types"] as JsonObject[]).filter((row) => row["wireId"] !== 0);
      const ids = new Set(rows.map((row) => row["typeId"]));
      return (wanted as string[]).every((name) => ids.has(String(typeNamed(name).typeId)));
    }
    return isSame(frame[key], wanted);
  });
}

function isSame(got: unknown, wanted: unknown): boolean {
  try {
    same(got, wanted);
    return true;
  } catch {
    return false;
  }
}

function compare(vector: Vector, consumer: Consumer): void {
  const { facts } = vector;
  const wanted = [...(facts["expect"] as JsonObject[])];
  if (vector.folder === "refusals") {
    const codes = facts["goodbye"] as string[];
    const closed = consumer.facts.find((fact) => fact["closed"] !== undefined)?.["closed"] as JsonObject | undefined;
    if (closed === undefined && !codes.includes("")) throw new Error(`not refused, wanted goodbye ${codes}`);
    if (closed !== undefined) {
      if (!codes.includes(closed["code"] as string)) throw new Error(`goodbye ${show(closed)}, wanted ${codes}`);
      const last = consumer.frames.at(-1)!;
      same({ sent: last["sent"], code: last["code"] }, { sent: "goodbye", code: closed["code"] }, "the last frame");
      if (!consumer.ended) throw new Error("the consumer has not ended its direction of the stream");
      wanted.push({ closed: { code: closed["code"]!, by_peer: false } }, { sent: "goodbye", code: closed["code"]! });
    }
  }
  for (const kind of FACTS) {
    const isOne = (fact: JsonObject): boolean => fact[kind] !== undefined && fact["sent"] === undefined;
    const want = wanted.filter(isOne).map((fact) => fact[kind]!);
    const have = consumer.facts.filter(isOne).map((fact) => fact[kind]!);
    if (have.length !== want.length) throw new Error(`${kind}: ${have.length}, wanted ${want.length}: ${show(have)}`);
    want.forEach((one, i) => sameFact(kind, have[i]!, one));
  }
  for (const kind of EXACT) {
    const want = wanted.filter((fact) => fact["sent"] === kind);
    const have = consumer.frames.filter((frame) => frame["sent"] === kind);
    if (have.length !== want.length) throw new Error(`sent ${kind}: ${have.length}, wanted ${want.length}: ${show(have)}`);
    want.forEach((one, i) => samePart(have[i]!, one, `sent ${kind}`));
  }
  for (const [name, number] of Object.entries((facts["counters"] ?? {}) as JsonObject)) {
    same((consumer.status as unknown as Record<string, unknown>)[name], number, name);
  }
}

/** What is wanted has to be there; more may be. */
function samePart(got: JsonObject, wanted: JsonObject, where: string): void {
  same(Object.fromEntries(Object.keys(wanted).map((key) => [key, got[key]])), wanted, where);
}

function sameFact(kind: string, got: Json, wanted: Json): void {
  if (kind === "up") {
    same(got, wanted, kind);
    return;
  }
  const want = wanted as JsonObject;
  const have = { ...(got as JsonObject) };
  if (want["unreadable"] === true) {
    same(have["type"], want["type"], kind);
    return;
  }
  if (kind === "closed" && want["code"] === null) have["code"] = null;
  if (kind === "failed") samePart(have, want, kind);
  else same(have, want, kind);
}

// --- all ----------------------------------------------------------------------------------------------------

export async function runVector(vector: Vector): Promise<void> {
  if (vector.folder === "messages") runMessage(vector);
  else if (vector.folder === "values") runValue(vector);
  else if (vector.folder === "frames") runFrame(vector);
  else {
    await runScript(vector, false);
    await runScript(vector, true);
  }
}

/** Run every vector of a folder, printing failures and the sum. Says whether all passed. */
export async function runAll(root: string): Promise<boolean> {
  let passed = 0;
  let failed = 0;
  for (const folder of FOLDERS) {
    for (const vector of loadVectors(root, folder)) {
      try {
        await runVector(vector);
        passed += 1;
      } catch (error) {
        failed += 1;
        console.log(`${folder}/${vector.name}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  return failed === 0 && passed > 0;
}
