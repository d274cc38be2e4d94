# What the tests of the drivers exchange.

@0x8ac7a59a1fcf5eaf;

struct Ping {
  number @0 :UInt32;
}

struct Pong {
  number @0 :UInt32;
}

struct Ask {
  number @0 :UInt32;
}

struct Answer {
  number @0 :UInt32;
}
