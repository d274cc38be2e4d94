# The control messages of lahja_capn's wire format, version 1. docs/wire.md is the normative text.
#
# Evolution: fields and enumerants are only ever appended. A peer that does not know a variant of
# Control answers it with goodbye (unknownControl), so a new variant needs a feature in hello first.
# No language annotations here: every Cap'n Proto compiler must take this file as it is.

@0xd1a3f7c2e94b6085;

const protocolVersion :UInt16 = 1;

struct Control {
  # The one root of every message whose frame has EVENT_ID 0.
  union {
    hello @0 :Hello;
    declare @1 :Declare;
    subscriptions @2 :Subscriptions;
    subscriptionsAck @3 :SubscriptionsAck;
    credit @4 :Credit;
    failed @5 :Failed;
    ping @6 :Void;
    pong @7 :Void;
    dropped @8 :Dropped;
    goodbye @9 :Goodbye;
  }
}

struct Hello {
  protocolVersion @0 :UInt16;
  name @1 :Text;
  # The endpoint's name: [A-Za-z0-9][A-Za-z0-9._-]{0,99}.
  instance @2 :Data;
  # 16 bytes, random for each start of an endpoint: tells a restart from a second claimant of a name.
  implementation @3 :Text;
  version @4 :Text;
  frameLimit @5 :UInt32;
  # The largest frame size (DATA_LENGTH + 4, bytes) that the sender of this hello accepts.
  keepaliveMs @6 :UInt32;
  # The sender pings after so long without a byte received; 0 = never.
  eventCredit @7 :UInt64;
  requestCredit @8 :UInt64;
  # Bytes of frame size that the receiver of this hello may send; 2^64 - 1 = unlimited.
  features @9 :List(Text);
  types @10 :List(TypeRow);
}

enum Kind {
  struct @0;
  # The message's root is the struct with this type id.
  opaque @1;
  # The message's root is Opaque; its bytes mean something only to the class bound to this type id.
}

struct TypeRow {
  wireId @0 :UInt16;
  # 1..65535; 0 = a struct that is reachable from an event and is no event here.
  kind @1 :Kind;
  typeId @2 :UInt64;
  name @3 :Text;
  layout @4 :List(UInt32);
  # Element k is the hash of the field with ordinal k (docs/wire.md); null or empty while the struct has
  # fields = unchecked.
}

struct Declare {
  types @0 :List(TypeRow);
}

struct Subscriptions {
  sequence @0 :UInt64;
  # 1 for the first on a connection, then one more each time.
  add @1 :List(UInt64);
  remove @2 :List(UInt64);
  # Type ids: a delta, from an empty set. remove is applied before add.
  all @3 :Bool;
  # True: every type, whatever add and remove say. Stated anew in each message.
  ackWanted @4 :Bool;
}

struct SubscriptionsAck {
  sequence @0 :UInt64;
  # The highest sequence applied: every event sent after this message obeys it.
}

struct Credit {
  events @0 :UInt64;
  requests @1 :UInt64;
  # Bytes given back, to be added to what is left.
}

enum FailedCode {
  handlerRaised @0;
  # A handler raised: text says what.
  noHandler @1;
  # Nobody subscribes to this request type here (any more).
  unknownType @2;
  # The request's type is not known here.
  incompatibleType @3;
  # The two sides hold different layouts of the type.
  unreadable @4;
  # The request's bytes could not be read.
  overloaded @5;
  # The receiver dropped the request under its own limits.
}

struct Failed {
  correlation @0 :UInt64;
  code @1 :FailedCode;
  typeName @2 :Text;
  # Class of the exception, where there was one.
  text @3 :Text;
}

struct Dropped {
  counts @0 :List(DropCount);
}

struct DropCount {
  typeId @0 :UInt64;
  count @1 :UInt64;
  # Events of this type that the sender of this message dropped for its receiver since the last dropped.
}

enum GoodbyeCode {
  shutdown @0;
  # The endpoint stops, or its user disconnected.
  protocolError @1;
  # Bytes or a message that version 1 does not allow; text says which.
  unsupportedVersion @2;
  invalidName @3;
  wrongName @4;
  # The connector expected an endpoint of another name.
  nameInUse @5;
  duplicate @6;
  # Two connections crossed, or this instance is connected already: the other one survives.
  replaced @7;
  # A newer connection of the same endpoint took over.
  handshakeTimeout @8;
  keepaliveTimeout @9;
  tooSlow @10;
  frameTooLarge @11;
  creditExceeded @12;
  invalidTable @13;
  # The id table contradicts itself.
  unknownId @14;
  # A frame's EVENT_ID, or a type in subscriptions, was never declared.
  unknownControl @15;
  # A control variant that is unknown or needs a feature that was not negotiated.
  unknownCorrelation @16;
  # A response or failed to a request number that was never issued.
  internalError @17;
  notPermitted @18;
}

struct Goodbye {
  code @0 :GoodbyeCode;
  text @1 :Text;
}

struct Opaque {
  data @0 :Data;
}
# The root of an event of kind opaque: the bytes that the class's own serialize() made.
