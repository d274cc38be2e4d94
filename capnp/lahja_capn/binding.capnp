# What the Python binding needs for itself; nothing of it travels as a root on the wire.

@0xe2b5a4c7d1908f36;

struct Box {
  # Holds one pointer of any kind, so that a struct, list, text or data can be copied into a message of its own.
  value @0 :AnyPointer;
}
