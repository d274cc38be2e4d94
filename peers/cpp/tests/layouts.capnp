# The schemas of docs/wire.md, section 6.2, whose layouts stand there.
@0xb7c9e1f0a3d58246;

struct Tick @0xc1d2e3f4a5b69788 {
  count @0 :UInt32;
  label @1 :Text = "none";
  union {
    idle @2 :Void;
    load @3 :Float32;
  }
}

enum Colour @0x8a1b2c3d4e5f6071 { red @0; green @1; blue @2; }

struct Mark @0x9b2c3d4e5f607182 {
  x @0 :Int32 = 3;
  colour @1 :Colour;
}

struct Outer @0xac3d4e5f60718293 (T) {
  struct Inner @0xbd4e5f60718293a4 (U) {
    t @0 :T;
    u @1 :U;
    next @2 :Inner(U);
  }
}

struct Pair @0xdf60718293a4b5c6 (A, B) {
  a @0 :A;
  b @1 :B;
}

struct Empty @0xe0718293a4b5c6d7 {
}

struct Corners @0xce5f60718293a4b5 {
  noText @0 :Text = "";
  noList @1 :List(UInt16) = [];
  lists @2 :List(List(Text)) = [["a"], ["b"]];
  mark @3 :Mark = (x = 7, colour = green);
  number @4 :Float32 = nan;
  choice @5! :union {
    first @6 :Void;
    second @7 :UInt16;
  }
  inner @8 :Outer(Mark).Inner(Data);
  pair @9 :Pair(Text, List(Mark));
  empty @10 :Empty = ();
  either :union {
    neither @11 :Void;
    both @12! :union {
      left @13 :UInt8;
      right @14 :UInt8;
    }
  }
}
