# The events of the demo: a small robot whose parts are processes.

@0xf2f3a6c5d1b80e94;

struct Position {
  x @0 :Float64;
  y @1 :Float64;
}

struct Reading {
  # One measurement. A burst of them shows the rate, a paced series the latency.
  sensor @0 :Text;
  sequence @1 :UInt32;
  celsius @2 :Float64;
  sentNs @3 :UInt64;
  # Monotonic clock of the machine, nanoseconds.
  paced @4 :Bool;
  raw @5 :Data;
}

struct PathQuery {
  # A request: how do I get there?
  start @0 :Position;
  goal @1 :Position;
}

struct Path {
  steps @0 :List(Position);
}

struct Step {
  number @0 :UInt16;
  position @1 :Position;
  sentNs @2 :UInt64;
}

struct Picture {
  # Large on purpose: who reads only the label never touches the pixels.
  label @0 :Text;
  width @1 :UInt32;
  height @2 :UInt32;
  pixels @3 :Data;
  sentNs @4 :UInt64;
}

enum Cause {
  tooHot @0;
  done @1;
}

struct Halt {
  # Sent to one endpoint only.
  cause @0 :Cause;
  celsius @1 :Float64;
}

struct GoHome {
  # The end of the demo.
}
