/** Lists in another form than the schema's, which Cap'n Proto allows so that schemas can grow. */

import { type Pointer, PointerType, utils } from "capnp-es";
import { UnreadableError } from "../errors.js";
import { BIT, COMPOSITE, POINTER, VOID } from "../wire/pointers.js";
import { moveTarget, ReceivedMessage } from "./received.js";

/** The form of a list that a generated class reads. */
export interface ListShape {
  readonly size: number;
  /** A Text or Data: it has no other form. */
  readonly exact?: boolean;
  readonly compositeSize?: { readonly dataByteLength: number; readonly pointerLength: number };
}

/** Bytes of data in an element, by the pointer's code. */
const DATA_BYTES = [0, 0, 1, 2, 4, 8, 0, 0] as const;
const FORM_NAMES = ["Void", "Bool", "1 byte", "2 bytes", "4 bytes", "8 bytes", "pointers", "structs"] as const;

interface Elements {
  readonly dataBytes: number;
  readonly pointers: number;
}

function elementsOf(pointer: Pointer, code: number): Elements {
  if (code === COMPOSITE) {
    const size = utils.getTargetCompositeListSize(pointer);
    return { dataBytes: size.dataByteLength, pointers: size.pointerLength };
  }
  return { dataBytes: DATA_BYTES[code]!, pointers: code === POINTER ? 1 : 0 };
}

/**
 * Make sure that the list behind a pointer, not a null one, has the form that its class reads: a list in another form
 * that Cap'n Proto allows is replaced by a copy, any other throws.
 */
export function conform(pointer: Pointer, shape: ListShape): void {
  if (utils.getTargetPointerType(pointer) !== PointerType.LIST) {
    throw new UnreadableError("a struct where a list belongs");
  }
  const code: number = utils.getTargetListElementSize(pointer);
  if (code === shape.size && code !== COMPOSITE) return;
  const from = elementsOf(pointer, code);
  let to: Elements;
  if (shape.size === COMPOSITE) {
    const wanted = shape.compositeSize!;
    if (code === COMPOSITE && from.dataBytes >= wanted.dataByteLength && from.pointers >= wanted.pointerLength) return;
    to = {
      dataBytes: Math.max(wanted.dataByteLength, Math.ceil(from.dataBytes / 8) * 8),
      pointers: Math.max(wanted.pointerLength, from.pointers),
    };
    if (code === BIT) refuse(code, shape.size);
  } else {
    to = { dataBytes: DATA_BYTES[shape.size]!, pointers: shape.size === POINTER ? 1 : 0 };
    const convertible = shape.size !== BIT && code !== BIT && shape.exact !== true;
    if (!convertible || from.dataBytes < to.dataBytes || from.pointers < to.pointers) {
      if (shape.size !== VOID) refuse(code, shape.size);
    }
  }
  replace(pointer, from, to, shape.size);
}

function refuse(code: number, wanted: number): never {
  throw new UnreadableError(`a list of ${FORM_NAMES[code]} where one of ${FORM_NAMES[wanted]} belongs`);
}

function replace(pointer: Pointer, from: Elements, to: Elements, size: number): void {
  const length = utils.getTargetListLength(pointer);
  if (size === VOID) {
    const nothing = utils.initPointer(pointer.segment, pointer.byteOffset + 8, pointer);
    utils.setListPointer(nothing.offsetWords, VOID as never, length, nothing.pointer);
    return;
  }
  const source = utils.getContent(pointer);
  const tag = size === COMPOSITE ? 8 : 0;
  const step = to.dataBytes + to.pointers * 8;
  const { message } = pointer.segment;
  if (message instanceof ReceivedMessage) message.takeAllowance(tag + length * step);
  const target = pointer.segment.allocate(tag + length * step);
  const fromStep = from.dataBytes + from.pointers * 8;
  for (let i = 0; i < length; i += 1) {
    const old = source.byteOffset + i * fromStep;
    const made = target.byteOffset + tag + i * step;
    const bytes = Math.min(from.dataBytes, to.dataBytes);
    new Uint8Array(target.segment.buffer, made, bytes).set(new Uint8Array(source.segment.buffer, old, bytes));
    for (let p = 0; p < Math.min(from.pointers, to.pointers); p += 1) {
      const at = utils.add(old - source.byteOffset + from.dataBytes + p * 8, source);
      moveTarget(at, utils.add(made - target.byteOffset + to.dataBytes + p * 8, target));
    }
  }
  const made = utils.initPointer(target.segment, target.byteOffset, pointer);
  const elements = { dataByteLength: to.dataBytes, pointerLength: to.pointers };
  if (size === COMPOSITE) utils.setStructPointer(length, elements as never, target);
  utils.setListPointer(made.offsetWords, size, length, made.pointer, elements as never);
}
