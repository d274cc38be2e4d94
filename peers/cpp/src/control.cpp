#include "control.h"

#include <algorithm>

#include "lahja_capn/wire.capnp.h"

namespace lahja_capn::control {

namespace {

static_assert(static_cast<unsigned>(wire::GoodbyeCode::NOT_PERMITTED) ==
              static_cast<unsigned>(GoodbyeCode::not_permitted));
static_assert(static_cast<unsigned>(wire::GoodbyeCode::TOO_SLOW) == static_cast<unsigned>(GoodbyeCode::too_slow));
static_assert(static_cast<unsigned>(wire::FailedCode::OVERLOADED) == static_cast<unsigned>(FailedCode::overloaded));
static_assert(static_cast<unsigned>(wire::Kind::OPAQUE) == static_cast<unsigned>(RowKind::opaque));

constexpr std::size_t max_features = 256;
// What a sender may put into failed and goodbye.
constexpr std::size_t max_type_name = 1024;
constexpr std::size_t max_failed_text = 16384;
constexpr std::size_t max_goodbye_text = 1024;

// At most `limit` bytes of a text, cut between two characters.
std::string shortened(const std::string& text, std::size_t limit) {
  if (!is_utf8(text.data(), text.size())) return "(a text that is not UTF-8)";
  if (text.size() <= limit) return text;
  std::size_t end = limit;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return text.substr(0, end);
}

// --- to Cap'n Proto ---

void write_rows(capnp::List<wire::TypeRow>::Builder to, const std::vector<TableRow>& rows) {
  capnp::uint index = 0;
  for (const TableRow& from : rows) {
    auto row = to[index++];
    row.setWireId(from.wire_id);
    row.setKind(static_cast<wire::Kind>(from.row.kind));
    row.setTypeId(from.row.type_id);
    row.setName(from.row.name.c_str());
    row.setLayout(kj::arrayPtr(from.row.layout.data(), from.row.layout.size()));
  }
}

struct Writer {
  wire::Control::Builder to;

  void operator()(const Hello& from) {
    auto hello = to.initHello();
    hello.setProtocolVersion(from.protocol_version);
    hello.setName(from.name.c_str());
    hello.setInstance(kj::arrayPtr(reinterpret_cast<const kj::byte*>(from.instance.data()), from.instance.size()));
    hello.setImplementation(from.implementation.c_str());
    hello.setVersion(from.version.c_str());
    hello.setFrameLimit(from.frame_limit);
    hello.setKeepaliveMs(from.keepalive_ms);
    hello.setEventCredit(from.event_credit);
    hello.setRequestCredit(from.request_credit);
    write_rows(hello.initTypes(static_cast<capnp::uint>(from.rows.size())), from.rows);
  }
  void operator()(const Declare& from) {
    write_rows(to.initDeclare().initTypes(static_cast<capnp::uint>(from.rows.size())), from.rows);
  }
  void operator()(const Subscriptions& from) {
    auto subscriptions = to.initSubscriptions();
    subscriptions.setSequence(from.sequence);
    subscriptions.setAdd(kj::arrayPtr(from.add.data(), from.add.size()));
    subscriptions.setRemove(kj::arrayPtr(from.remove.data(), from.remove.size()));
    subscriptions.setAll(from.all);
    subscriptions.setAckWanted(from.ack_wanted);
  }
  void operator()(const SubscriptionsAck& from) { to.initSubscriptionsAck().setSequence(from.sequence); }
  void operator()(const Credit& from) {
    auto credit = to.initCredit();
    credit.setEvents(from.events);
    credit.setRequests(from.requests);
  }
  void operator()(const Failed& from) {
    auto failed = to.initFailed();
    failed.setCorrelation(from.correlation);
    failed.setCode(static_cast<wire::FailedCode>(from.code));
    failed.setTypeName(shortened(from.type_name, max_type_name).c_str());
    failed.setText(shortened(from.text, max_failed_text).c_str());
  }
  void operator()(const Ping&) { to.setPing(); }
  void operator()(const Pong&) { to.setPong(); }
  void operator()(const Dropped&) { throw LocalError("this library sends no `dropped`"); }
  void operator()(const Goodbye& from) {
    auto goodbye = to.initGoodbye();
    goodbye.setCode(static_cast<wire::GoodbyeCode>(from.code));
    goodbye.setText(shortened(from.text, max_goodbye_text).c_str());
  }
};

// --- from Cap'n Proto ---

std::string text_in(capnp::Text::Reader text) {
  if (!is_utf8(text.begin(), text.size())) {
    throw ProtocolError(GoodbyeCode::protocol_error, "a text of a control message is not UTF-8");
  }
  return std::string(text.begin(), text.size());
}

// Elements of a list may be written shorter than this, and would then take more memory here than they did there. They lack
// the second word, with the type id.
constexpr std::size_t least_row_bytes = 16;

std::vector<TableRow> rows_in(capnp::List<wire::TypeRow>::Reader rows, std::size_t message_bytes) {
  if (rows.size() * least_row_bytes > message_bytes) {
    throw ProtocolError(GoodbyeCode::invalid_table, std::to_string(rows.size()) + " rows in a control message of " +
                                                        std::to_string(message_bytes) + " bytes: they have no type id");
  }
  std::vector<TableRow> found;
  found.reserve(rows.size());
  for (const auto from : rows) {
    TableRow row{from.getWireId(), {}};
    row.row.type_id = from.getTypeId();
    row.row.kind = static_cast<RowKind>(from.getKind());
    row.row.name = text_in(from.getName());
    const auto layout = from.getLayout();
    row.row.layout.reserve(layout.size());
    for (const auto hash : layout) row.row.layout.push_back(hash);
    found.push_back(std::move(row));
  }
  return found;
}

std::vector<std::uint64_t> ids_in(capnp::List<std::uint64_t>::Reader ids) {
  std::vector<std::uint64_t> found;
  found.reserve(ids.size());
  for (const auto id : ids) found.push_back(id);
  return found;
}

Hello hello_in(wire::Hello::Reader from, std::size_t message_bytes) {
  Hello hello;
  hello.protocol_version = from.getProtocolVersion();
  // Nothing else of another version's hello may be relied on.
  if (hello.protocol_version != 1) return hello;
  hello.name = text_in(from.getName());
  const auto instance = from.getInstance();
  hello.instance.assign(reinterpret_cast<const char*>(instance.begin()), instance.size());
  hello.implementation = text_in(from.getImplementation());
  hello.version = text_in(from.getVersion());
  hello.frame_limit = from.getFrameLimit();
  hello.keepalive_ms = from.getKeepaliveMs();
  hello.event_credit = from.getEventCredit();
  hello.request_credit = from.getRequestCredit();
  const auto features = from.getFeatures();
  hello.features = features.size();
  if (hello.features > max_features) {
    throw ProtocolError(GoodbyeCode::protocol_error, "hello lists " + std::to_string(hello.features) +
                                                         " features: the limit is " + std::to_string(max_features));
  }
  for (const auto feature : features) text_in(feature);
  hello.rows = rows_in(from.getTypes(), message_bytes);
  return hello;
}

Goodbye goodbye_in(wire::Control::Reader from) {
  // Whatever else it says, the peer has ended: a goodbye of our own would reach nobody.
  Goodbye goodbye{static_cast<GoodbyeCode>(0xffff), "its reason cannot be read"};
  try {
    const auto said = from.getGoodbye();
    goodbye.code = static_cast<GoodbyeCode>(said.getCode());
    goodbye.text = text_in(said.getText());
  } catch (const kj::Exception&) {
  } catch (const ProtocolError&) {
  }
  return goodbye;
}

Message read(wire::Control::Reader from, std::size_t message_bytes) {
  switch (from.which()) {
    case wire::Control::HELLO:
      return hello_in(from.getHello(), message_bytes);
    case wire::Control::DECLARE:
      return Declare{rows_in(from.getDeclare().getTypes(), message_bytes)};
    case wire::Control::SUBSCRIPTIONS: {
      const auto said = from.getSubscriptions();
      return Subscriptions{said.getSequence(), ids_in(said.getAdd()), ids_in(said.getRemove()), said.getAll(),
                           said.getAckWanted()};
    }
    case wire::Control::SUBSCRIPTIONS_ACK:
      return SubscriptionsAck{from.getSubscriptionsAck().getSequence()};
    case wire::Control::CREDIT: {
      const auto said = from.getCredit();
      return Credit{said.getEvents(), said.getRequests()};
    }
    case wire::Control::FAILED: {
      const auto said = from.getFailed();
      return Failed{said.getCorrelation(), static_cast<FailedCode>(said.getCode()), text_in(said.getTypeName()),
                    text_in(said.getText())};
    }
    case wire::Control::PING:
      return Ping{};
    case wire::Control::PONG:
      return Pong{};
    case wire::Control::DROPPED: {
      Dropped dropped;
      for (const auto count : from.getDropped().getCounts()) dropped.events += count.getCount();
      return dropped;
    }
    case wire::Control::GOODBYE:
      return goodbye_in(from);
  }
  throw ProtocolError(GoodbyeCode::unknown_control,
                      "control variant " + std::to_string(static_cast<unsigned>(from.which())) +
                          " is not known in protocol version 1, and no feature was negotiated");
}

}  // namespace

SharedFrame encode(const Message& message) {
  capnp::word scratch[128] = {};
  capnp::MallocMessageBuilder builder(kj::arrayPtr(scratch, 128));
  std::visit(Writer{builder.initRoot<wire::Control>()}, message);
  return std::make_shared<const OutFrame>(FrameKind::control, std::uint16_t{0}, builder);
}

Message decode(kj::ArrayPtr<const capnp::word> message) {
  try {
    MessageView view(message, control_options(message.size()));
    return read(view.root<wire::Control>(), message.asBytes().size());
  } catch (const kj::Exception& error) {
    throw ProtocolError(GoodbyeCode::protocol_error,
                        std::string("a control message cannot be read: ") + error.getDescription().cStr());
  }
}

std::size_t encoded_size(const Row& row) {
  const auto whole_words = [](std::size_t bytes) { return (bytes + 7) / 8 * 8; };
  // Two words of data and two pointers.
  return 32 + whole_words(row.name.size() + 1) + whole_words(4 * row.layout.size());
}

bool is_utf8(const char* text, std::size_t size) {
  const auto* at = reinterpret_cast<const unsigned char*>(text);
  const auto* end = at + size;
  while (at < end) {
    const unsigned first = *at++;
    if (first < 0x80) continue;
    const unsigned more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    if (first < 0xc2 || first > 0xf4 || static_cast<std::size_t>(end - at) < more) return false;
    // The second byte excludes overlong forms, surrogates and what lies beyond U+10FFFF.
    const unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    const unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (*at < low || *at > high) return false;
    for (unsigned i = 0; i < more; ++i, ++at) {
      if ((*at & 0xc0) != 0x80) return false;
    }
  }
  return true;
}

}  // namespace lahja_capn::control

namespace lahja_capn {

namespace {

template <typename Code>
std::string enumerant_name(Code code) {
  const auto number = static_cast<std::uint16_t>(code);
  for (const auto enumerant : capnp::Schema::from<Code>().getEnumerants()) {
    if (enumerant.getOrdinal() == number) return enumerant.getProto().getName().cStr();
  }
  return std::to_string(number);
}

}  // namespace

std::string to_string(GoodbyeCode code) { return enumerant_name(static_cast<wire::GoodbyeCode>(code)); }
std::string to_string(FailedCode code) { return enumerant_name(static_cast<wire::FailedCode>(code)); }

}  // namespace lahja_capn
