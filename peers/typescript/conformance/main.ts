/** The conformance program: `conformance vectors DIR`, `conformance peer …`; see peers/README.md. */

import { runAll } from "./vectors.js";

const USAGE = `usage: conformance vectors DIR
       conformance peer --name NAME (--serve PATH | --connect PATH --expect NAME) [--event-credit BYTES]
                        [--request-credit BYTES] [--frame-limit BYTES] [--keepalive-ms MS]`;

const [command, ...rest] = process.argv.slice(2);
if (command === "vectors" && rest.length === 1) {
  process.exitCode = (await runAll(rest[0]!)) ? 0 : 1;
} else {
  console.error(USAGE);
  process.exitCode = 2;
}
