# Plain structs, in which every kind of field occurs that the short way knows; and some that are not plain.

@0xe8a4b6c0d1f23947;

enum Colour {
  red @0;
  green @1;
  blue @2;
}

struct Plain {
  flag @0 :Bool;
  text @1 :Text;
  number @2 :UInt64;
  data @3 :Data;
  other @4 :Bool;
  colour @5 :Colour;
  value @6 :Float64;
  view @7 :Data;
  nothing @8 :Void;
}

struct Numbers {
  a @0 :Int16;
  b @1 :UInt8;
  c @2 :UInt16;
  d @3 :UInt32;
  e @4 :Int64;
  f @5 :Bool;
  half @6 :Float32;
  small @7 :Int8;
  g @8 :Int32;
}

# Names that the sources could take for something of their own.
struct Names {
  type @0 :Text;
  len @1 :Data;
  self @2 :UInt8;
  size @3 :Text;
  segment @4 :Data;
  found @5 :Bool;
  bytes @6 :UInt8;
  args @7 :Bool;
  class @8 :Bool;
}

struct Texts {
  one @0 :Text;
  two @1 :Text;
  three @2 :Data;
}

struct Own {
  text @0 :Text;
}

struct Keyword {
  class @0 :Bool;
}

struct WithDefault {
  number @0 :UInt8 = 1;
}

struct WithUnion {
  union {
    one @0 :UInt8;
    two @1 :UInt8;
  }
}

struct WithGroup {
  place :group {
    x @0 :UInt8;
  }
}

struct WithList {
  items @0 :List(UInt8);
}

struct Wide {
  f0 @0 :UInt8; f1 @1 :UInt8; f2 @2 :UInt8; f3 @3 :UInt8; f4 @4 :UInt8; f5 @5 :UInt8; f6 @6 :UInt8;
  f7 @7 :UInt8; f8 @8 :UInt8; f9 @9 :UInt8; f10 @10 :UInt8;
}

struct OnlyVoid {
  nothing @0 :Void;
}
