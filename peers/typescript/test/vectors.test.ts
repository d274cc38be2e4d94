/** Every vector of tests/vectors, one test each. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { FOLDERS, loadVectors } from "../conformance/loading.js";
import { runVector } from "../conformance/vectors.js";

// From dist/test/ to the project's tests/vectors/.
const root = fileURLToPath(new URL("../../../../tests/vectors/", import.meta.url));

for (const folder of FOLDERS) {
  describe(folder, () => {
    const vectors = loadVectors(root, folder);
    it("has vectors", () => assert.notEqual(vectors.length, 0, `nothing is in ${root}${folder}`));
    for (const vector of vectors) it(vector.name, () => runVector(vector));
  });
}
