# What the benchmarks send; the same fields for every system.

@0xc1b58a9d55f1d37e;

struct Small {
  number @0 :UInt64;
  value @1 :Float64;
  payload @2 :Data;
  text @3 :Text;
  flag @4 :Bool;
}

struct Large {
  number @0 :UInt64;
  payload @1 :Data;
}

struct Ask {
  number @0 :UInt64;
  payload @1 :Data;
}

struct Answer {
  number @0 :UInt64;
  payload @1 :Data;
}
