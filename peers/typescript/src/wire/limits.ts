/** Limits of docs/wire.md section 11, with their units. */

/** Bytes of the header, before the message. */
export const HEADER_BYTES = 16;
/** The smallest DATA_LENGTH: 12 bytes of header, a table of 8, one word. */
export const MIN_DATA_LENGTH = 28;
/** Largest frame size of a control message, bytes. */
export const CONTROL_LIMIT = 1_048_576;
export const MAX_SEGMENTS = 512;
export const INSTANCE_BYTES = 16;
export const MAX_FEATURES = 256;
/** implementation and version in hello, name of a row, typeName in failed, text of goodbye; bytes of UTF-8. */
export const SHORT_TEXT_BYTES = 1024;
/** text of failed, bytes of UTF-8. */
export const LONG_TEXT_BYTES = 16_384;
export const MIN_FRAME_LIMIT = 1024;
export const MAX_FRAME_LIMIT = 2 ** 31 - 8;
export const MAX_WIRE_IDS = 65_535;
export const MAX_UNNUMBERED = 65_535;
/** Of a peer's id table: 24 bytes a row, its name, 4 bytes an element of its layout. */
export const TABLE_BYTES = 16 * 1024 * 1024;
export const ROW_BYTES = 24;
export const MAX_BALANCE = 2n ** 63n - 1n;
export const UNLIMITED = 2n ** 64n - 1n;
export const PROTOCOL_VERSION = 1;
export const MAX_OPEN_REQUESTS = 16_384;
export const NAME_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;
