# What the scenarios exchange.

@0xbba1688ab7f81654;

struct Count {
  number @0 :UInt32;
}

struct Other {
  number @0 :UInt32;
}

# Its class and that of Count have one Python base.
struct Special {
  number @0 :UInt32;
}

struct Blob {
  number @0 :UInt32;
  data @1 :Data;
}

struct Question {
  number @0 :UInt32;
  data @1 :Data;
}

struct Reply {
  number @0 :UInt32;
}
