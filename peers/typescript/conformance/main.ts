/** The conformance program: `conformance vectors DIR`, `conformance peer …`; see peers/README.md. */

import { parseArgs } from "node:util";
import { type EndpointOptions, UsageError } from "../src/index.js";
import { ConformancePeer } from "./peer.js";
import { runAll } from "./vectors.js";

const USAGE = `usage: conformance vectors DIR
       conformance peer --name NAME (--serve PATH | --connect PATH --expect NAME) [--event-credit BYTES]
                        [--request-credit BYTES] [--frame-limit BYTES] [--keepalive-ms MS]
                        [--handshake-ms MS]`;

function fail(text: string): never {
  throw new UsageError(text);
}

function readOptions(args: string[]): { options: EndpointOptions; serve: string | null; connect: string | null; expect: string } {
  const text = { type: "string" } as const;
  let given;
  try {
    given = parseArgs({
      args,
      options: {
        name: text,
        serve: text,
        connect: text,
        expect: text,
        "event-credit": text,
        "request-credit": text,
        "frame-limit": text,
        "keepalive-ms": text,
        "handshake-ms": text,
      },
    }).values;
  } catch (error) {
    return fail((error as Error).message);
  }
  type Numeric = "event-credit" | "request-credit" | "frame-limit" | "keepalive-ms" | "handshake-ms";
  const number = (option: Numeric): bigint | undefined => {
    const value = given[option];
    if (value !== undefined && !/^\d+$/.test(value)) fail(`--${option} wants a number, not ${JSON.stringify(value)}`);
    return value === undefined ? undefined : BigInt(value);
  };
  const { name, serve, connect, expect } = given;
  if (name === undefined) return fail("--name is missing");
  if ((serve === undefined) === (connect === undefined)) return fail("either --serve or --connect");
  if (connect !== undefined && expect === undefined) return fail("--connect wants --expect NAME");
  const eventCredit = number("event-credit");
  const requestCredit = number("request-credit");
  const frameLimit = number("frame-limit");
  const keepaliveMs = number("keepalive-ms");
  const handshakeMs = number("handshake-ms");
  const options: EndpointOptions = {
    name,
    ...(eventCredit === undefined ? {} : { eventCredit }),
    ...(requestCredit === undefined ? {} : { requestCredit }),
    ...(frameLimit === undefined ? {} : { frameLimit: Number(frameLimit) }),
    ...(keepaliveMs === undefined ? {} : { keepaliveMs: Number(keepaliveMs) }),
    ...(handshakeMs === undefined ? {} : { handshakeMs: Number(handshakeMs) }),
  };
  return { options, serve: serve ?? null, connect: connect ?? null, expect: expect ?? "" };
}

async function main(args: string[]): Promise<number> {
  const [command, ...rest] = args;
  if (command === "vectors" && rest.length === 1) return (await runAll(rest[0]!)) ? 0 : 1;
  let peer: ConformancePeer;
  let where: ReturnType<typeof readOptions>;
  try {
    if (command !== "peer") return fail(command === undefined ? "a command is missing" : `no command ${command}`);
    where = readOptions(rest);
    peer = new ConformancePeer(where.options);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(`conformance: ${error.message}\n${USAGE}`);
    return 2;
  }
  await peer.run(where.serve, where.connect, where.expect);
  return 0;
}

// Not process.exitCode: requests that wait for nothing, and standard input, would keep the process alive.
process.exit(await main(process.argv.slice(2)));
