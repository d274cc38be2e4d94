import { Endpoint, eventType } from "lahja-capn-peer";
import * as schema from "../generated/conformance.js"; // node scripts/generate.mjs generated FILE.capnp
import { rows } from "../conformance/rows.js"; // lahja-capn table FILE.capnp --language typescript -o rows.ts

const Count = eventType(schema.Count, rows);
const Ask = eventType(schema.Ask, rows);
const Answer = eventType(schema.Answer, rows);

const endpoint = new Endpoint({ name: "meter" });
endpoint.serve(Ask, Answer, async (request) => {
  const { number } = request.body;
  return (answer) => (answer.number = number * 2n); // a throw would be the requester's RequestFailed
});
const counts = endpoint.subscribe(Count);
await endpoint.connect(process.argv[2]!, "hub"); // or: await endpoint.listen(path)
const { body } = await endpoint.request(Ask, Answer, (ask) => (ask.number = 21n), { timeoutMs: 1000 });
console.log(`twice 21 is ${body.number}`);
await endpoint.broadcast(Count, (count) => (count.number = 1n)); // waits while a peer's queue is full
for await (const event of counts) {
  console.log(`${event.peer} counts ${event.body.number}`);
  if (event.body.number === 3n) break; // unsubscribes
}
await endpoint.stop();
