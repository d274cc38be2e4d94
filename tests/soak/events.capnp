# What the processes of a soak run exchange. `run` is the publisher's incarnation, `seq` counts its events of one type.

@0xc9d5f1a07be34218;

struct Small {
  run @0 :UInt64;
  seq @1 :UInt64;
}

struct Large {
  run @0 :UInt64;
  seq @1 :UInt64;
  crc @2 :UInt32;
  data @3 :Data;
}

# To one endpoint; `seq` counts for each of them.
struct Targeted {
  run @0 :UInt64;
  seq @1 :UInt64;
  to @2 :Text;
}

struct Streamed {
  run @0 :UInt64;
  seq @1 :UInt64;
}

# Subscriptions to it come and go.
struct Churned {
  run @0 :UInt64;
  seq @1 :UInt64;
}

struct Ask {
  number @0 :UInt64;
  fail @1 :Bool;
  data @2 :Data;
}

struct Answer {
  number @0 :UInt64;
  by @1 :UInt64;
}
