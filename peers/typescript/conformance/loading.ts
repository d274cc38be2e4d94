/** The vectors of a folder, as tests/vectors/README.md describes them. */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expand, type Json } from "./values.js";

// What the JSON of the various folders may have; the runner of a folder knows what is there.
export interface Facts {
  readonly [key: string]: Json | undefined;
}

export interface Vector {
  readonly folder: string;
  readonly name: string;
  readonly facts: Facts;
  readonly data: Buffer;
}

export const FOLDERS = ["messages", "values", "frames", "conversations", "refusals"] as const;

function bytesOf(path: string, facts: Facts): Buffer {
  const recipe = facts["recipe"] as { hex?: string; repeat?: string; times?: number }[] | undefined;
  if (recipe !== undefined) {
    return Buffer.concat(recipe.map((part) => Buffer.from(part.hex ?? part.repeat!.repeat(part.times!), "hex")));
  }
  return existsSync(path) ? readFileSync(path) : Buffer.alloc(0);
}

export function loadVectors(root: string, folder: string): Vector[] {
  const path = join(root, folder);
  if (!existsSync(path)) return [];
  const names = readdirSync(path).filter((file) => file.endsWith(".json")).sort();
  return names.map((file) => {
    const name = file.slice(0, -".json".length);
    const raw = JSON.parse(readFileSync(join(path, file), "utf8")) as Facts;
    return { folder, name, facts: expand(raw as Json) as Facts, data: bytesOf(join(path, `${name}.bin`), raw) };
  });
}
