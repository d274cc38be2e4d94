# Evolving of conformance.capnp as an older program knows it: fewer fields, no union yet.
@0x9d3c7be1f4a80256;

struct Evolving @0xb2f06c1d9a5e4837 {
  number @0 :UInt32;
  text @1 :Text;
}
