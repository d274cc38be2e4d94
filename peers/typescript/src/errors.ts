/** Every error of this package, one tree: catch PeerError, or the one that is meant. */

/** Codes of a goodbye, in the order of wire.capnp. */
export const GOODBYE_CODES = [
  "shutdown",
  "protocolError",
  "unsupportedVersion",
  "invalidName",
  "wrongName",
  "nameInUse",
  "duplicate",
  "replaced",
  "handshakeTimeout",
  "keepaliveTimeout",
  "tooSlow",
  "frameTooLarge",
  "creditExceeded",
  "invalidTable",
  "unknownId",
  "unknownControl",
  "unknownCorrelation",
  "internalError",
  "notPermitted",
] as const;
export type GoodbyeCode = (typeof GOODBYE_CODES)[number];

/** Codes of a failed request, in the order of wire.capnp. */
export const FAILED_CODES = [
  "handlerRaised",
  "noHandler",
  "unknownType",
  "incompatibleType",
  "unreadable",
  "overloaded",
] as const;
export type FailedCode = (typeof FAILED_CODES)[number];

export class PeerError extends Error {
  override get name(): string {
    return this.constructor.name;
  }
}

/** The peer broke a rule of the wire format; the connection says goodbye with this code. */
export class ProtocolError extends PeerError {
  constructor(
    readonly code: GoodbyeCode,
    message: string,
  ) {
    super(message);
  }
}

/** Bytes inside a message that cannot be read: a bad pointer, a Text that is not UTF-8, a list of another kind. */
export class UnreadableError extends PeerError {}

/** The caller asked for something that this endpoint cannot do, or gave an argument that it cannot use. */
export class UsageError extends PeerError {}

/** A connection ended, or did not come up. */
export class ConnectionClosed extends PeerError {
  constructor(
    /** Of the peer's goodbye or of ours; "" if the stream ended without one; a number if the code is unknown here. */
    readonly code: GoodbyeCode | number | "" | null,
    /** The peer ended it. */
    readonly byPeer: boolean,
    message: string,
  ) {
    super(message);
  }
}

/** Every peer that was asked has answered `failed`; these are the facts of the first of them. */
export class RequestFailed extends PeerError {
  constructor(
    /** "" if the answer was of no use: its type unknown here, or not the one that was wanted. */
    readonly code: FailedCode | number | "",
    readonly typeName: string,
    readonly text: string,
    readonly peer: string,
  ) {
    super(`${peer} answered ${code === "" ? "what cannot be used" : `failed (${code})`}: ${typeName ? `${typeName}: ` : ""}${text}`);
  }
}

/** No answer came in time. */
export class RequestTimeout extends PeerError {}

/** Every peer that was asked is gone, and none has answered. */
export class RequestLost extends PeerError {}

/** No connected peer subscribes to the type of the request. */
export class NoResponder extends PeerError {}

/** The endpoint is stopped, or was never started. */
export class EndpointStopped extends PeerError {}
