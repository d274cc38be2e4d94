/** Says which tests failed and why, passes on what they print (such as seeds), and ends with node's own summary. */

import { relative } from "node:path";
import { inspect } from "node:util";

export default async function* report(events) {
  for await (const { type, data } of events) {
    if (type === "test:stdout" || type === "test:stderr") yield data.message;
    // A suite fails with its tests, and says nothing that they do not.
    const ofTests = data?.details?.error?.failureType === "subtestsFailed";
    if (type === "test:fail" && !ofTests) {
      const { error } = data.details;
      const where = data.file === undefined ? "" : ` (${relative("", data.file)}:${data.line})`;
      yield `FAILED ${data.name}${where}\n${inspect(error.cause ?? error)}\n\n`;
    }
    if (type === "test:diagnostic" && data.nesting === 0) yield `# ${data.message}\n`;
  }
}
