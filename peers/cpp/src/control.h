// Control messages as values: docs/wire.md, section 5. Private to the library.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "lahja_capn/types.h"
#include "lahja_capn/wire.h"

namespace lahja_capn::control {

struct TableRow {
  std::uint16_t wire_id;
  Row row;
};

struct Hello {
  std::uint16_t protocol_version = 1;
  std::string name;
  std::string instance;
  std::string implementation;
  std::string version;
  std::uint32_t frame_limit = 0;
  std::uint32_t keepalive_ms = 0;
  std::uint64_t event_credit = 0;
  std::uint64_t request_credit = 0;
  std::size_t features = 0;
  std::vector<TableRow> rows;
};

struct Declare {
  std::vector<TableRow> rows;
};

struct Subscriptions {
  std::uint64_t sequence = 0;
  std::vector<std::uint64_t> add;
  std::vector<std::uint64_t> remove;
  bool all = false;
  bool ack_wanted = false;
};

struct SubscriptionsAck {
  std::uint64_t sequence = 0;
};

struct Credit {
  std::uint64_t events = 0;
  std::uint64_t requests = 0;
};

struct Failed {
  std::uint64_t correlation = 0;
  FailedCode code = FailedCode::handler_raised;
  std::string type_name;
  std::string text;
};

struct Ping {};
struct Pong {};

struct Dropped {
  std::uint64_t events = 0;
};

struct Goodbye {
  GoodbyeCode code = GoodbyeCode::shutdown;
  std::string text;
};

using Message =
    std::variant<Hello, Declare, Subscriptions, SubscriptionsAck, Credit, Failed, Ping, Pong, Dropped, Goodbye>;

SharedFrame encode(const Message& message);

// Reads the whole message; nothing of it is looked at later. Throws ProtocolError; never for a goodbye, which is one
// whatever its code and text are.
Message decode(kj::ArrayPtr<const capnp::word> message);

// How many bytes a row takes in hello or declare.
std::size_t encoded_size(const Row& row);

bool is_utf8(const char* text, std::size_t size);

}  // namespace lahja_capn::control
