#!/usr/bin/env node
// Makes TypeScript of .capnp files with capnp-es, and lets the result read through lahja-capn-peer/capnp: the same
// classes, but with the checks that capnp-es leaves out.
//
//     generate.mjs OUTDIR FILE.capnp...
//
// It calls the capnp compiler itself: the command of capnp-es puts file names into a shell's command line unquoted.

import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { compileAll } from "capnp-es/compiler";

const [outDir, ...files] = process.argv.slice(2);
if (outDir === undefined || files.length === 0) {
  console.error("usage: generate.mjs OUTDIR FILE.capnp...");
  process.exit(2);
}

mkdirSync(outDir, { recursive: true });
for (const file of files) {
  const source = resolve(file);
  let request;
  try {
    request = execFileSync("capnp", ["compile", "-o-", `--src-prefix=${dirname(source)}`, source], {
      stdio: ["ignore", "pipe", "inherit"],
      maxBuffer: 2 ** 30,
    });
  } catch (error) {
    const missing = error.code === "ENOENT" ? "; install the capnp compiler (Debian: capnproto)" : "";
    console.error(`generate.mjs: ${file} was not compiled: ${error.message}${missing}`);
    process.exit(1);
  }
  const made = await compileAll(request, { ts: true, js: false, dts: false });
  for (const [name, text] of made.files) {
    const ours = text.replace('from "capnp-es"', 'from "lahja-capn-peer/capnp"');
    if (ours === text) {
      console.error(`generate.mjs: capnp-es made a ${name} that does not import capnp-es as this script expects`);
      process.exit(1);
    }
    writeFileSync(join(outDir, basename(name)), ours);
  }
}
