# Events of the two examples that came with lahja.

@0x9f2d8a4be1c7d350;

struct FirstThingHappened {
  payload @0 :Text;
}

struct SecondThingHappened {
  payload @0 :Text;
}

struct GetSomethingRequest {
}

struct DeliverSomethingResponse {
  payload @0 :Text;
}
