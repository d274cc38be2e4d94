# What conformance.capnp has no field for, and the older version of a struct in a list.
@0xc86f0a91e5b7d234;

struct Part { number @0 :UInt64; text @1 :Text; more @2 :UInt64; }
struct OldPart { number @0 :UInt64; text @1 :Text; }

struct Forms {
  parts @0 :List(Part);
  number @1 :Int32 = 100000;
  nothings @2 :List(Void);
  floats @3 :List(Float64);
  bytes @4 :List(UInt8) = [1, 2, 3];
  text @5 :Text = "ab";
  part @6 :Part;
  data @7 :Data;
}

struct OldForms { parts @0 :List(OldPart); }
