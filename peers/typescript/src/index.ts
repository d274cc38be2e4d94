/** A peer of the lahja_capn event bus. The rules of the wire are in docs/wire.md. */

export { Endpoint } from "./endpoint/endpoint.js";
export type { Change, EndCode, EndpointOptions, PeerStatus, RequestOptions } from "./endpoint/options.js";
export { ReceivedRequest, type RequestHandler, type Service } from "./endpoint/serving.js";
export { ReceivedEvent, Subscription } from "./endpoint/subscription.js";
export * from "./errors.js";
export { eventType, type EventType, type TableRow } from "./types.js";
