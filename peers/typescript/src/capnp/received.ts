/** A received message, opened for reading in place. */

import { Message, type Pointer, PointerType, type Struct, type StructCtor, utils } from "capnp-es";
import { UnreadableError } from "../errors.js";
import { inspect, placeOf } from "./inspect.js";

/** capnp-es's number for an arena of several segments; its class is not exported. */
const MULTI_SEGMENT = 1;

/**
 * A message over the segments of a frame, without a copy.
 *
 * Beware: capnp-es writes into a message that it reads. A field whose pointer is null gets a struct or the default
 * that it stands for, and one of an older writer's smaller structs is replaced by a larger copy. The buffers belong
 * to this message alone, so nobody sees it; but they cannot be opened twice.
 */
export class ReceivedMessage extends Message {
  readonly #bad: Map<number, string>;
  /** Bytes that copies of lists in another form may still take. */
  #copyAllowance: number;

  constructor(buffers: readonly ArrayBuffer[]) {
    super({ kind: MULTI_SEGMENT, buffers: [...buffers] } as never, false);
    this.#bad = new Map(inspect(buffers));
    this.#copyAllowance = 1_048_576 + buffers.reduce((sum, buffer) => sum + buffer.byteLength * 8, 0);
    // What can be read is finite, so the limit of capnp-es has nothing to guard; it would end the life of an event
    // that is read often.
    this._capnp.traversalLimit = Number.POSITIVE_INFINITY;
  }

  // capnp-es takes 4 KiB more for every null pointer that is read, though there is room in the last segment.
  override allocateSegment(byteLength: number): ReturnType<Message["allocateSegment"]> {
    const last = this._capnp.segments.at(-1)!;
    return last.hasCapacity(byteLength) ? last : super.allocateSegment(byteLength);
  }

  /** Throw if the pointer at this place was found to be bad. */
  guard(pointer: Pointer): void {
    if (this.#bad.size === 0) return;
    const reason = this.#bad.get(placeOf(pointer.segment.id, pointer.byteOffset));
    if (reason !== undefined) throw new UnreadableError(`this field cannot be read: ${reason}`);
  }

  /** Whether the pointer is bad; if so the other place is bad too, because it is moved there. */
  moveIfBad(from: Pointer, to: Pointer): boolean {
    const reason = this.#bad.get(placeOf(from.segment.id, from.byteOffset));
    if (reason !== undefined) this.#bad.set(placeOf(to.segment.id, to.byteOffset), reason);
    return reason !== undefined;
  }

  takeAllowance(bytes: number): void {
    this.#copyAllowance -= bytes;
    if (this.#copyAllowance < 0) throw new UnreadableError("the lists of this message grow too much when read");
  }
}

/** Throw if the pointer is one of a received message, and bad. */
export function guard(pointer: Pointer): void {
  const { message } = pointer.segment;
  if (message instanceof ReceivedMessage) message.guard(pointer);
}

/** Let `to` lead to what `from` leads to. */
export function moveTarget(from: Pointer, to: Pointer): void {
  const { message } = from.segment;
  if (message instanceof ReceivedMessage && message.moveIfBad(from, to)) return;
  if (utils.isNull(from)) return;
  const content = utils.getContent(from);
  const source = utils.followFars(from);
  const composite = utils.getTargetPointerType(from) === PointerType.LIST && utils.getTargetListElementSize(from) === 7;
  const start = composite ? content.byteOffset - 8 : content.byteOffset;
  const kind = source.segment.getUint8(source.byteOffset) & 3;
  const sizes = source.segment.getUint32(source.byteOffset + 4);
  const made = utils.initPointer(content.segment, start, to);
  made.pointer.segment.setUint32(made.pointer.byteOffset, kind | (made.offsetWords << 2));
  made.pointer.segment.setUint32(made.pointer.byteOffset + 4, sizes);
}

/** Put a larger copy in the place of a struct that an older writer made smaller than `size`. */
export function enlarge(pointer: Struct, size: { dataByteLength: number; pointerLength: number }): void {
  const old = utils.getTargetStructSize(pointer);
  if (old.dataByteLength >= size.dataByteLength && old.pointerLength >= size.pointerLength) return;
  const from = utils.getContent(pointer);
  const dataBytes = Math.max(old.dataByteLength, size.dataByteLength);
  const pointers = Math.max(old.pointerLength, size.pointerLength);
  const to = pointer.segment.allocate(dataBytes + pointers * 8);
  to.segment.copyWords(to.byteOffset, from.segment, from.byteOffset, old.dataByteLength / 8);
  for (let i = 0; i < old.pointerLength; i += 1) {
    moveTarget(utils.add(old.dataByteLength + i * 8, from), utils.add(dataBytes + i * 8, to));
  }
  const made = utils.initPointer(to.segment, to.byteOffset, pointer);
  utils.setStructPointer(made.offsetWords, { dataByteLength: dataBytes, pointerLength: pointers } as never, made.pointer);
}

/** The struct that a pointer, not a null one, leads to. */
export function asStruct<T extends Struct>(pointer: Pointer, type: StructCtor<T>): T {
  guard(pointer);
  if (utils.getTargetPointerType(pointer) !== PointerType.STRUCT) {
    throw new UnreadableError(`a list where a ${type._capnp.displayName} belongs`);
  }
  const struct = new type(pointer.segment, pointer.byteOffset, pointer._capnp.depthLimit);
  enlarge(struct, type._capnp.size);
  return struct;
}

/** The root of a received message as a struct of this type. The buffers belong to it from now on. */
export function openMessage<T extends Struct>(buffers: readonly ArrayBuffer[], type: StructCtor<T>): T {
  const message = new ReceivedMessage(buffers);
  const root = new type(message.getSegment(0), 0);
  if (utils.isNull(root)) utils.initStruct(type._capnp.size, root);
  return asStruct(root, type);
}
