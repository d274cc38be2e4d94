# Evolving of conformance.capnp as a newer program knows it: more fields, and another member in the union.
@0xe1475a0c93bd2f68;

struct Inner @0xf7a3d0925c4be186 {
  number @0 :Int32;
  label @1 :Text = "inner default";
  more @2 :List(Inner);
  weight @3 :Float32;
}

struct Evolving @0xb2f06c1d9a5e4837 {
  number @0 :UInt32;
  text @1 :Text;
  inner @2 :Inner;
  choice :union {
    left @3 :UInt16;
    right @4 :Text;
    middle @6 :Float64;
  }
  extra @5 :List(Text);
  more @7 :UInt64 = 7;
}
