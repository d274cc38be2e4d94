# The events that every implementation's conformance program knows: the vectors of this folder and the live matrix use
# them. No language annotations here: every Cap'n Proto compiler must take this file as it is.

@0xd8a4b1c35e7f9026;

enum Color { red @0; green @1; blue @2; }

struct Inner @0xf7a3d0925c4be186 {
  number @0 :Int32;
  label @1 :Text = "inner default";
  more @2 :List(Inner);
}

struct Everything {
  # Every kind of field that an event may have.
  nothing @0 :Void;
  flag @1 :Bool;
  i8 @2 :Int8;
  i16 @3 :Int16;
  i32 @4 :Int32;
  i64 @5 :Int64;
  u8 @6 :UInt8;
  u16 @7 :UInt16;
  u32 @8 :UInt32;
  u64 @9 :UInt64;
  f32 @10 :Float32;
  f64 @11 :Float64;
  text @12 :Text;
  data @13 :Data;
  color @14 :Color;
  inner @15 :Inner;

  nothings @16 :List(Void);
  flags @17 :List(Bool);
  i8s @18 :List(Int8);
  i16s @19 :List(Int16);
  i32s @20 :List(Int32);
  i64s @21 :List(Int64);
  u8s @22 :List(UInt8);
  u16s @23 :List(UInt16);
  u32s @24 :List(UInt32);
  u64s @25 :List(UInt64);
  f32s @26 :List(Float32);
  f64s @27 :List(Float64);
  texts @28 :List(Text);
  datas @29 :List(Data);
  colors @30 :List(Color);
  inners @31 :List(Inner);
  u16Lists @32 :List(List(UInt16));
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
      first @42 :Int16;
      last @43 :Int16;
    }
  }

  shape :union {
    circle @44 :Float64;
    polygon @45 :List(Float32);
    blank @46 :Void;
  }

  anyKind @47 :AnyKind;
  # What `anything` holds; Cap'n Proto itself does not say.
  anything @48 :AnyPointer;

  flagDefault @49 :Bool = true;
  i16Default @50 :Int16 = -12;
  f64Default @51 :Float64 = 1.5;
  textDefault @52 :Text = "default";
  dataDefault @53 :Data = 0x"01 02 03";
  colorDefault @54 :Color = blue;
  u8sDefault @55 :List(UInt8) = [1, 2, 3];
  innerDefault @56 :Inner = (number = 5);

  again @57 :Everything;
}

enum AnyKind {
  null @0;
  text @1;
  data @2;
  inner @3;
  # The struct Inner.
  u16s @4;
  # List(UInt16).
}

struct Count {
  # One of many: sent by the thousand, in order.
  number @0 :UInt64;
}

struct Blob {
  id @0 :UInt32;
  data @1 :Data;
}

struct Late {
  # Never among the rows of a hello: its sender declares it when it first needs it.
  text @0 :Text;
}

struct Evolving @0xb2f06c1d9a5e4837 {
  # The middle one of three versions; older.capnp and newer.capnp have the same type id.
  number @0 :UInt32;
  text @1 :Text;
  inner @2 :Inner;
  choice :union {
    left @3 :UInt16;
    right @4 :Text;
  }
}

enum Mode {
  answer @0;
  fail @1;
  # The responder answers `failed` with code handlerRaised.
  silence @2;
  # The responder never answers.
}

struct Ask {
  number @0 :UInt64;
  mode @1 :Mode;
}

struct Answer {
  number @0 :UInt64;
  # Twice the asked number, modulo 2^64.
  text @1 :Text;
  # "twice N".
}
