/** A guest of another endpoint: says each Count in a word of its own, asks one question, and answers what it is asked. */

import { parseArgs } from "node:util";
import { Endpoint, eventType } from "../src/index.js";
import * as schema from "../generated/conformance.js";
import { rows } from "../conformance/rows.js";

const Count = eventType(schema.Count, rows);
const Evolving = eventType(schema.Evolving, rows);
const Ask = eventType(schema.Ask, rows);
const Answer = eventType(schema.Answer, rows);

const text = { type: "string" } as const;
const { connect, expect, name } = parseArgs({ options: { connect: text, expect: text, name: text } }).values;
if (connect === undefined || expect === undefined || name === undefined) {
  console.error("usage: example --connect PATH --expect NAME --name NAME");
  process.exit(2);
}

const endpoint = new Endpoint({
  name,
  onChange: (change) => {
    if (change.is !== "down") return;
    console.log(`${change.peer} says goodbye: ${change.code || "(the connection broke)"}`);
    process.exit(change.code === "shutdown" && change.byPeer ? 0 : 1);
  },
});
endpoint.serve(Ask, Answer, (request) => {
  const { number } = request.body;
  console.log(`is asked by ${request.peer} for twice ${number}`);
  return (answer) => {
    answer.number = BigInt.asUintN(64, number * 2n);
    answer.text = `twice ${number}`;
  };
});
const counts = endpoint.subscribe(Count);
await endpoint.connect(connect, expect);

const asked = endpoint.request(Ask, Answer, (ask) => (ask.number = 21n), { to: expect, timeoutMs: 5000 });
asked.then(
  ({ body, peer }) => console.log(`asked ${peer} for twice 21: ${body.number}, "${body.text}"`),
  (error: unknown) => console.log(`asked ${expect} for twice 21: ${String(error)}`),
);

for await (const { body, peer } of counts) {
  const { number } = body;
  console.log(`has seen Count ${number} of ${peer}`);
  await endpoint.broadcast(Evolving, (event) => {
    event.number = Number(BigInt.asUintN(32, number));
    event.text = `${name} has seen ${number}`;
  });
}
