/** How every conformance program answers an Ask. */

import type { Endpoint, ReceivedRequest, Service } from "../src/index.js";
import * as schema from "../generated/conformance.js";
import { Answer, Ask } from "./plans.js";

/** An error of the name that the conformance programs agree on. */
class ValueError extends Error {
  override name = "ValueError";
}

/** Serve Ask; without `answering` every request is kept open. `seen` is told of each. */
export function serveAsk(
  endpoint: Endpoint,
  answering: boolean,
  seen: (request: ReceivedRequest<schema.Ask>) => void = () => undefined,
): Service {
  return endpoint.serve(Ask, Answer, async (request) => {
    seen(request);
    const { number, mode } = request.body;
    if (!answering || mode === schema.Mode.SILENCE) return await new Promise<never>(() => undefined);
    if (mode === schema.Mode.FAIL) throw new ValueError("asked to fail");
    return (answer) => {
      answer.number = BigInt.asUintN(64, number * 2n);
      answer.text = `twice ${number}`;
    };
  });
}
