/** What README.md shows is examples/tour.ts, and it does what it says. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { it } from "node:test";
import { fileURLToPath } from "node:url";
import { Answer, Ask, Count } from "../conformance/plans.js";
import { socketPath, until, watched } from "./support.js";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

it("shows the tour", () => {
  const readme = readFileSync(here("../../README.md"), "utf8");
  const tour = readFileSync(here("../../examples/tour.ts"), "utf8");
  assert.ok(readme.includes(`\`\`\`ts\n${tour}\`\`\`\n`), "copy examples/tour.ts into README.md");
});

it("shows what runs", { timeout: 20_000 }, async () => {
  const path = socketPath();
  const { endpoint } = watched("hub");
  endpoint.serve(Ask, Answer, ({ body: { number } }) => (answer) => (answer.number = number * 2n));
  const counts = endpoint.subscribe(Count);
  await endpoint.listen(path);
  const tour = spawn(process.execPath, [here("../examples/tour.js"), path], { stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  let code: number | null = null;
  tour.stdout.on("data", (chunk) => (said += String(chunk)));
  tour.on("close", (given) => (code = given));
  assert.equal((await counts.next()).value!.body.number, 1n);
  const { body } = await endpoint.request(Ask, Answer, (ask) => (ask.number = 4n));
  assert.equal(body.number, 8n);
  for (const number of [2n, 3n]) await endpoint.broadcast(Count, (count) => (count.number = number));
  await until("its end", () => code !== null);
  assert.deepEqual([code, said], [0, "twice 21 is 42\nhub counts 2\nhub counts 3\n"]);
});
