# Every kind of field that Cap'n Proto has.
@0xe60b1e5ad4f0a111;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("test");

enum Color { red @0; green @1; blue @2; }

struct Inner {
  number @0 :Int32;
  text @1 :Text = "inner default";
  more @2 :List(Inner);
}

struct Box(T) {
  value @0 :T;
}

struct Pair(A, B) {
  first @0 :A;
  second @1 :B;
  boxed @2 :Box(B);
}

struct Everything {
  void @0 :Void;
  bool @1 :Bool;
  int8 @2 :Int8;
  int16 @3 :Int16;
  int32 @4 :Int32;
  int64 @5 :Int64;
  uint8 @6 :UInt8;
  uint16 @7 :UInt16;
  uint32 @8 :UInt32;
  uint64 @9 :UInt64;
  float32 @10 :Float32;
  float64 @11 :Float64;
  text @12 :Text;
  data @13 :Data;
  color @14 :Color;
  inner @15 :Inner;

  voids @16 :List(Void);
  bools @17 :List(Bool);
  int8s @18 :List(Int8);
  int16s @19 :List(Int16);
  int32s @20 :List(Int32);
  int64s @21 :List(Int64);
  uint8s @22 :List(UInt8);
  uint16s @23 :List(UInt16);
  uint32s @24 :List(UInt32);
  uint64s @25 :List(UInt64);
  float32s @26 :List(Float32);
  float64s @27 :List(Float64);
  texts @28 :List(Text);
  datas @29 :List(Data);
  colors @30 :List(Color);
  inners @31 :List(Inner);
  numberLists @32 :List(List(UInt16));
  textLists @33 :List(List(Text));
  innerLists @34 :List(List(Inner));

  place :group {
    x @35 :Float64;
    label @36 :Text;
    inner @37 :Inner;
  }

  union {
    none @38 :Void;
    count @39 :UInt32;
    word @40 :Text;
    part @41 :Inner;
    span :group {
      from @42 :Int16;
      to @43 :Int16;
    }
  }

  shape :union {
    circle @44 :Float64;
    polygon @45 :List(Float32);
    nothing @46 :Void;
  }

  any @47 :AnyPointer;
  anyStruct @48 :AnyStruct;
  anyList @49 :AnyList;

  textBox @50 :Box(Text);
  innerBox @51 :Box(Inner);
  pair @52 :Pair(Text, Data);
  nested @53 :Box(Box(List(Inner)));

  boolDefault @54 :Bool = true;
  intDefault @55 :Int16 = -12;
  floatDefault @56 :Float64 = 1.5;
  textDefault @57 :Text = "default";
  dataDefault @58 :Data = 0x"01 02 03";
  colorDefault @59 :Color = blue;
  listDefault @60 :List(UInt8) = [1, 2, 3];
  innerDefault @61 :Inner = (number = 5);

  self @62 :Everything;
}

struct Small {
  id @0 :UInt64;
  value @1 :Float64;
  data @2 :Data;
  text @3 :Text;
  flag @4 :Bool;
}

struct Blob {
  id @0 :UInt32;
  data @1 :Data;
  numbers @2 :List(UInt32);
  note @3 :Text;
  choice :union {
    nothing @4 :Void;
    payload @5 :Data;
  }
  parts @6 :List(Part);

  struct Part {
    name @0 :Text;
    content @1 :Data;
  }
}

struct Choice {
  union {
    nothing @0 :Void;
    data @1 :Data;
    numbers @2 :List(UInt32);
    bytes @3 :List(UInt8);
  }
}

struct Holder { small @0 :Small; smalls @1 :List(Small); }

struct Single { number @0 :Int8; }

struct Empty {}

struct Empties { items @0 :List(Empty); }

struct Awkward {
  bind @0 :Int32;
  which @1 :Text;
  from @2 :Int32;
  inner @3 :Inner;
  struct Inner { which @0 :Text; }
}

struct Ask { question @0 :Text; }
struct Answer { text @0 :Text; }

struct GenericEvent(T) { value @0 :T; }

interface Service { call @0 () -> (); }

struct WithInterface { deep @0 :List(Deep); struct Deep { service @0 :Service; } }
struct WithCapability { capability @0 :Capability; }
