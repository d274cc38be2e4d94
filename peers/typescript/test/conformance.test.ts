/** The conformance program as a process. */

import assert from "node:assert/strict";
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from "node:child_process";
import { createInterface } from "node:readline";
import { after, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { socketPath, until } from "./support.js";

const MAIN = fileURLToPath(new URL("../conformance/main.js", import.meta.url));
const TIMEOUT = { timeout: 20_000 };

type Line = Record<string, unknown> & { is: string };

class Program {
  readonly lines: Line[] = [];
  readonly #process: ChildProcessWithoutNullStreams;
  code: number | null = null;

  constructor(...args: string[]) {
    this.#process = spawn(process.execPath, [MAIN, "peer", ...args]);
    this.#process.stderr.pipe(process.stderr);
    createInterface({ input: this.#process.stdout }).on("line", (line) => this.lines.push(JSON.parse(line) as Line));
    this.#process.on("exit", (code) => (this.code = code));
    after(() => this.#process.kill("SIGKILL"));
  }

  tell(command: Record<string, unknown> | null): void {
    if (command === null) this.#process.stdin.end();
    else this.#process.stdin.write(`${JSON.stringify(command)}\n`);
  }

  async says(is: string, facts: Record<string, unknown> = {}): Promise<Line> {
    const matches = (line: Line): boolean => line.is === is && Object.keys(facts).every((key) => line[key] === facts[key]);
    await until(`${is} ${JSON.stringify(facts)}`, () => this.lines.some(matches));
    return this.lines.find(matches)!;
  }

  async ends(): Promise<number> {
    await until("its end", () => this.code !== null);
    return this.code!;
  }
}

async function two(): Promise<[Program, Program]> {
  const path = socketPath();
  const server = new Program("--name", "server", "--serve", path);
  await server.says("listening");
  const client = new Program("--name", "client", "--connect", path, "--expect", "server");
  await Promise.all([server.says("up", { peer: "client" }), client.says("up", { peer: "server" })]);
  return [server, client];
}

describe("conformance", TIMEOUT, () => {
  it("refuses a bad command line with 2", () => {
    const bad = [[], ["peer"], ["peer", "--name", "a"], ["peer", "--name", "a", "--connect", "x"], ["dance"]];
    bad.push(["peer", "--name", "a b", "--serve", "x"], ["peer", "--name", "a", "--serve", "x", "--frame-limit", "7"]);
    bad.push(["peer", "--name", "a", "--serve", "x", "--event-credit", "many"]);
    for (const args of bad) {
      const { status, stderr } = spawnSync(process.execPath, [MAIN, ...args], { encoding: "utf8" });
      assert.equal(status, 2, args.join(" "));
      assert.match(stderr, /usage/);
    }
  });

  it("fails when there are no vectors", () => {
    const { status, stdout } = spawnSync(process.execPath, [MAIN, "vectors", "/nowhere"], { encoding: "utf8" });
    assert.deepEqual([status, stdout], [1, "0 passed, 0 failed\n"]);
  });

  it("holds events and goes on answering requests", async () => {
    const [server, client] = await two();
    client.tell({ do: "subscribe", types: ["Late"] });
    client.tell({ do: "serve_requests" });
    client.tell({ do: "hold" });
    await client.says("holding");
    await server.says("peer_subscribed", { type: "Ask" });
    server.tell({ do: "broadcast", type: "Late", value: { text: "kept" } });
    server.tell({ do: "request", number: "4", mode: "answer", timeout_ms: 5000, tag: "q" });
    assert.equal((await server.says("answered", { tag: "q" }))["text"], "twice 4");
    server.tell({ do: "status" });
    assert.equal((await server.says("status"))["sent_events"], 1);
    assert.ok(!client.lines.some((line) => line.is === "received"));
    client.tell({ do: "resume" });
    assert.deepEqual((await client.says("received"))["value"], { text: "kept" });
    client.tell({ do: "stop" });
    await client.says("stopped");
    assert.equal(await client.ends(), 0);
    assert.equal((await server.says("down"))["code"], "shutdown");
    server.tell(null);
    assert.equal(await server.ends(), 0);
  });

  it("goes on after a command that cannot be done", async () => {
    const [server] = await two();
    server.tell({ do: "broadcast", type: "Nothing", value: {} });
    await server.says("error");
    server.tell({ do: "dance" });
    await until("a second error", () => server.lines.filter((line) => line.is === "error").length === 2);
    server.tell({ do: "request", number: "1", mode: "answer", timeout_ms: 100, tag: "r" });
    const failed = await server.says("failed", { tag: "r" });
    assert.equal(failed["code"], "noHandler");
  });
});
