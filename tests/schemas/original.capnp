# The earlier version of evolved.capnp.
@0xe60b1e5ad4f0a333;

enum Color @0xc3a4c9a9a5d7e0f1 { red @0; green @1; blue @2; }

struct Event @0x8a2b3c4d5e6f7081 {
  color @0 :Color;
  colors @1 :List(Color);
  union {
    old @2 :Int32;
    older @3 :Text;
  }
}
