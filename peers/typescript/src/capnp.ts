/**
 * capnp-es, with the checks that it leaves out. Code that scripts/generate.mjs made imports this module in its place.
 *
 * What is added, for received messages: a pointer that was found to be bad throws where its field is read; the kind of
 * every list is checked, and lists are read in each form that Cap'n Proto allows for their type; a Text must be UTF-8
 * and end with a NUL, and keeps a byte order mark; List(Void) is one, not a list of pointers.
 */

import * as lib from "capnp-es";
import type { Pointer, Struct, StructCtor } from "capnp-es";
import { conform, type ListShape } from "./capnp/lists.js";
import { asStruct, guard } from "./capnp/received.js";
import { UnreadableError } from "./errors.js";
import { BYTE, decodeText } from "./wire/pointers.js";

// Names that are declared below take the place of those of capnp-es.
export * from "capnp-es";
export { asStruct } from "./capnp/received.js";

const { isNull } = lib.utils;
const BYTES: ListShape = { size: BYTE, exact: true };

/** The string that a pointer leads to. */
export function asText(pointer: Pointer): string {
  guard(pointer);
  if (isNull(pointer)) return "";
  conform(pointer, BYTES);
  const { segment, byteOffset } = lib.utils.getContent(pointer);
  return decodeText(new Uint8Array(segment.buffer, byteOffset, lib.utils.getTargetListLength(pointer)));
}

/** The list that a pointer leads to. */
export function asList<T>(pointer: Pointer, type: lib.ListCtor<T>): lib.List<T> {
  guard(pointer);
  if (!isNull(pointer)) conform(pointer, type._capnp);
  return new type(pointer.segment, pointer.byteOffset, pointer._capnp.depthLimit);
}

/** The Data that a pointer leads to. */
export function asData(pointer: Pointer): lib.Data {
  guard(pointer);
  if (!isNull(pointer)) conform(pointer, BYTES);
  return new lib.Data(pointer.segment, pointer.byteOffset, pointer._capnp.depthLimit);
}

/**
 * Let a pointer that is being built lead to a new list: an AnyPointer, or an element of a list of lists or of Data.
 * Generated code has no way to make these.
 */
export function initAnyList<T>(pointer: Pointer, type: lib.ListCtor<T>, length: number): lib.List<T> {
  const { size, compositeSize } = type._capnp;
  const tag = compositeSize === undefined ? 0 : 8;
  const content = pointer.segment.allocate(tag + lib.utils.getListByteLength(size as never, length, compositeSize));
  if (compositeSize !== undefined) lib.utils.setStructPointer(length, compositeSize, content);
  const made = lib.utils.initPointer(content.segment, content.byteOffset, pointer);
  lib.utils.setListPointer(made.offsetWords, size, length, made.pointer, compositeSize);
  return new type(pointer.segment, pointer.byteOffset, pointer._capnp.depthLimit);
}

function getText(index: number, s: Struct, defaultValue?: string): string {
  const pointer = lib.utils.getPointer(index, s);
  guard(pointer);
  return isNull(pointer) ? (defaultValue ?? "") : asText(pointer);
}

function getData(index: number, s: Struct, defaultValue?: Pointer): lib.Data {
  const pointer = lib.utils.getPointer(index, s);
  guard(pointer);
  if (isNull(pointer) && defaultValue !== undefined) return lib.utils.getData(index, s, defaultValue);
  return asData(pointer);
}

function getList<T>(index: number, type: lib.ListCtor<T>, s: Struct, defaultValue?: Pointer): lib.List<T> {
  const pointer = lib.utils.getPointer(index, s);
  guard(pointer);
  if (isNull(pointer) && defaultValue !== undefined) return lib.utils.getList(index, type, s, defaultValue);
  return asList(pointer, type);
}

function getStruct<T extends Struct>(index: number, type: StructCtor<T>, s: Struct, defaultValue?: Pointer): T {
  const pointer = lib.utils.getPointer(index, s);
  guard(pointer);
  return isNull(pointer) ? lib.utils.getStruct(index, type, s, defaultValue) : asStruct(pointer, type);
}

// capnp-es takes the lower half of the mask alone.
function getInt32(byteOffset: number, s: Struct, defaultMask?: DataView): number {
  const bits = lib.utils.getInt32(byteOffset, s);
  return defaultMask === undefined ? bits : bits ^ defaultMask.getInt32(0, true);
}

export const utils: typeof lib.utils = { ...lib.utils, getText, getData, getList, getStruct, getInt32 };

/** A list of lists, or of Data. */
export function PointerList<T extends Pointer>(type: Parameters<typeof lib.PointerList<T>>[0]): lib.ListCtor<T> {
  const Base = lib.PointerList<T>(type);
  const shape = (type as unknown as typeof lib.Data) === lib.Data ? BYTES : (type._capnp as unknown as ListShape);
  return class extends Base {
    override get(index: number): T {
      const pointer = elementPointer(this, index);
      guard(pointer);
      if (!isNull(pointer) && shape.size !== undefined) conform(pointer, shape);
      return new type(pointer.segment, pointer.byteOffset, pointer._capnp.depthLimit);
    }
  };
}

function elementPointer(list: Pointer, index: number): Pointer {
  const content = lib.utils.getContent(list);
  return new lib.Pointer(content.segment, content.byteOffset + index * 8, list._capnp.depthLimit - 1);
}

export const DataList = PointerList(lib.Data);

export class TextList extends lib.TextList {
  override get(index: number): string {
    return asText(elementPointer(this, index));
  }
}

/** A list of nothing: only its length says something. capnp-es would write a list of pointers. */
export class VoidList extends lib.List<lib.Void> {
  static override readonly _capnp = { displayName: "List<Void>", size: 0 as lib.ListElementSize.VOID };

  override get(_index: number): lib.Void {
    return null as never;
  }

  override set(_index: number, _value: lib.Void): void {
    // Nothing is there to be set.
  }
}

/** For generated code: a default value of a list or struct. */
export function readRawPointer(data: ArrayBuffer): Pointer {
  const pointer = (lib as unknown as { readRawPointer(data: ArrayBuffer): Pointer }).readRawPointer(data);
  // Every use of the default counts against this limit, in the life of the process: capnp-es would one day refuse it.
  pointer.segment.message._capnp.traversalLimit = Number.POSITIVE_INFINITY;
  return pointer;
}

export { UnreadableError };
