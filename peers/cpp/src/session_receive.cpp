// The receiving half of a session.
#include <cstring>

#include "control.h"
#include "lahja_capn/names.h"
#include "lahja_capn/session.h"

namespace lahja_capn {

namespace {

constexpr std::size_t instance_bytes = 16;
constexpr std::size_t max_about_bytes = 1024;

[[noreturn]] void refuse(const std::string& what, GoodbyeCode code = GoodbyeCode::protocol_error) {
  throw ProtocolError(code, what);
}

std::string hex(std::uint64_t id) {
  char text[19];
  std::snprintf(text, sizeof(text), "0x%016llx", static_cast<unsigned long long>(id));
  return text;
}

}  // namespace

kj::ArrayPtr<kj::byte> Session::receive_space() { return reader_.space(); }

void Session::received(std::size_t bytes, Instant now) {
  received_total_ += bytes;
  last_received_ = now;
  asked_ = 0;
  if (state_ == State::handshake || state_ == State::up) reader_.received(bytes);
}

void Session::stream_ended(const std::string& why) {
  if (state_ == State::closing) {
    state_ = State::closed;
    out_.clear();
  } else if (state_ != State::closed) {
    end(std::nullopt, why + (reader_.between_frames() ? "" : ", inside a frame"), true);
  }
}

std::optional<SessionEvent> Session::next(Instant now) {
  while (pending_.empty() && !deciding_ && (state_ == State::handshake || state_ == State::up)) {
    try {
      const bool content_allowed =
          state_ == State::up && content_from_ && reader_.position() >= *content_from_;
      auto frame = reader_.next(content_allowed);
      if (!frame) break;
      on_frame(std::move(*frame), now);
    } catch (const ProtocolError& error) {
      goodbye(error.code(), error.what(), now);
    }
  }
  if (pending_.empty()) return std::nullopt;
  auto event = std::move(pending_.front());
  pending_.pop_front();
  return event;
}

void Session::on_frame(Frame frame, Instant now) {
  if (frame.kind() == FrameKind::control) {
    on_control(frame, now);
    return;
  }
  const Row* row = table_.find(frame.wire_id());
  if (row == nullptr) {
    refuse("a frame with EVENT_ID " + std::to_string(frame.wire_id()) + ", which was never declared",
           GoodbyeCode::unknown_id);
  }
  switch (frame.kind()) {
    case FrameKind::event: return on_event(*row, std::move(frame));
    case FrameKind::request: return on_request(*row, std::move(frame));
    case FrameKind::response: return on_response(*row, std::move(frame));
    case FrameKind::control: break;
  }
}

// --- content ---

void Session::on_event(const Row& row, Frame frame) {
  granted_events_.arrived(frame.size(), "an event");
  const EventType* type = catalog_.find(row.type_id);
  if (type == nullptr || !catalog_.wants_event(row.type_id) || table_.incompatibility(*type) != nullptr) {
    ++counters_.events_skipped;
    granted_events_.give_back(frame.size());
    return;
  }
  ++counters_.events_received;
  pending_.emplace_back(EventArrived{type, std::move(frame)});
}

void Session::on_request(const Row& row, Frame frame) {
  granted_requests_.arrived(frame.size(), "a request");
  const std::uint64_t number = frame.correlation();
  if (number <= last_request_in_) {
    refuse("request " + std::to_string(number) + " after " + std::to_string(last_request_in_) +
           ": numbers must increase");
  }
  last_request_in_ = number;
  const EventType* type = catalog_.find(row.type_id);
  if (type == nullptr) {
    refuse_request(number, frame.size(), FailedCode::unknown_type, row.name + " is not known here");
  } else if (const Incompatibility* found = table_.incompatibility(*type)) {
    refuse_request(number, frame.size(), FailedCode::incompatible_type, found->text());
  } else if (!catalog_.serves(row.type_id)) {
    refuse_request(number, frame.size(), FailedCode::no_handler, "nobody answers " + type->name() + " here");
  } else if (open_in_.size() >= settings_.open_requests) {
    refuse_request(number, frame.size(), FailedCode::overloaded,
                   std::to_string(settings_.open_requests) + " requests are open already");
  } else {
    open_in_.insert(number);
    ++counters_.requests_received;
    pending_.emplace_back(RequestArrived{type, std::move(frame)});
  }
}

bool Session::answers_open_request(std::uint64_t correlation) {
  if (correlation == 0 || correlation > last_request_sent_) {
    refuse("an answer to request " + std::to_string(correlation) + ": the last one sent was " +
               std::to_string(last_request_sent_),
           GoodbyeCode::unknown_correlation);
  }
  if (open_out_.erase(correlation) > 0) return true;
  ++counters_.late_answers;
  return false;
}

void Session::on_response(const Row& row, Frame frame) {
  const std::uint64_t correlation = frame.correlation();
  if (!answers_open_request(correlation)) return;
  const EventType* type = catalog_.find(row.type_id);
  const Incompatibility* found = type == nullptr ? nullptr : table_.incompatibility(*type);
  if (found != nullptr) {
    pending_.emplace_back(FailedArrived{correlation, FailedCode::incompatible_type, "", found->text()});
  } else {
    pending_.emplace_back(ResponseArrived{row.type_id, std::move(frame)});
  }
}

// --- control messages ---

void Session::on_control(const Frame& frame, Instant now) {
  const control::Message message = control::decode(frame.message());
  if (const auto* goodbye = std::get_if<control::Goodbye>(&message)) {
    end(goodbye->code, goodbye->text, true);
    return;
  }
  const bool is_hello = std::holds_alternative<control::Hello>(message);
  if (is_hello != (theirs_ == Half::opening)) {
    refuse(is_hello ? "a second hello" : "the first message is no hello");
  }
  const bool early = std::holds_alternative<control::Hello>(message) ||
                     std::holds_alternative<control::Declare>(message) ||
                     std::holds_alternative<control::Subscriptions>(message) ||
                     std::holds_alternative<control::Ping>(message) || std::holds_alternative<control::Pong>(message);
  if (theirs_ != Half::active && !early) refuse("a control message before the first subscriptions that must follow it");
  struct Visitor {
    Session& session;
    const Instant now;
    void operator()(const control::Hello& said) { session.on_hello(said); }
    void operator()(const control::Declare& said) { session.on_declare(said); }
    void operator()(const control::Subscriptions& said) { session.on_subscriptions(said, now); }
    void operator()(const control::SubscriptionsAck& said) { session.on_ack(said, now); }
    void operator()(const control::Credit& said) { session.on_credit(said, now); }
    void operator()(const control::Failed& said) { session.on_failed(said); }
    void operator()(const control::Ping&) { session.pong_owed_ = true; }
    void operator()(const control::Pong&) {}
    void operator()(const control::Dropped&) {}
    void operator()(const control::Goodbye&) {}
  };
  std::visit(Visitor{*this, now}, message);
}

void Session::on_hello(const control::Hello& hello) {
  if (hello.protocol_version != 1) {
    refuse("the peer speaks protocol version " + std::to_string(hello.protocol_version) + ", this endpoint version 1",
           GoodbyeCode::unsupported_version);
  }
  if (!is_valid_name(hello.name)) {
    refuse("\"" + hello.name.substr(0, 200) + "\" is no name: wanted " + name_pattern, GoodbyeCode::invalid_name);
  }
  if (hello.instance.size() != instance_bytes) {
    refuse("instance has " + std::to_string(hello.instance.size()) + " bytes: wanted " +
           std::to_string(instance_bytes));
  }
  if (hello.implementation.size() > max_about_bytes || hello.version.size() > max_about_bytes) {
    refuse("implementation has " + std::to_string(hello.implementation.size()) + " bytes and version " +
           std::to_string(hello.version.size()) + ": the limit is " + std::to_string(max_about_bytes) + " each");
  }
  if (hello.frame_limit < min_frame_limit || hello.frame_limit > max_frame_limit) {
    refuse("frameLimit is " + std::to_string(hello.frame_limit) + ": wanted " + std::to_string(min_frame_limit) +
           " to " + std::to_string(max_frame_limit));
  }
  if (hello.instance == settings_.instance) {
    refuse("this endpoint reached itself", GoodbyeCode::duplicate);
  }
  if (role_ == Role::connector && hello.name != wanted_name_) {
    refuse("wanted to reach " + wanted_name_ + ", and " + hello.name + " answered", GoodbyeCode::wrong_name);
  }
  for (const auto& row : hello.rows) table_.add(row.wire_id, row.row);
  for (const auto window : {hello.event_credit, hello.request_credit}) {
    if (window > max_balance && window != unlimited) {
      refuse("a credit window of " + std::to_string(window) + " bytes: wanted at most 2^63 - 1, or 2^64 - 1");
    }
  }
  event_window_.grant(hello.event_credit);
  request_window_.grant(hello.request_credit);
  peer_ = PeerInfo{hello.name, hello.instance, hello.implementation, hello.version, hello.frame_limit};
  theirs_ = Half::introduced;
  deciding_ = true;
  pending_.emplace_back(HelloArrived{});
}

void Session::on_declare(const control::Declare& declare) {
  for (const auto& row : declare.rows) table_.add(row.wire_id, row.row);
  // A type may be disabled from now on.
  if (!queued_types_.empty()) purge_events();
}

void Session::on_subscriptions(const control::Subscriptions& said, Instant now) {
  if (said.sequence != peer_sequence_ + 1) {
    refuse("subscriptions " + std::to_string(said.sequence) + " after " + std::to_string(peer_sequence_) +
           ": wanted the next number");
  }
  peer_sequence_ = said.sequence;
  for (const auto id : said.add) {
    if (!table_.declares(id)) {
      refuse("a subscription to type " + hex(id) + ", which stands in no row with a wire id", GoodbyeCode::unknown_id);
    }
  }
  bool changed = peer_all_ != said.all;
  bool less = peer_all_ && !said.all;
  for (const auto id : said.remove) less = peer_types_.erase(id) > 0 || less;
  for (const auto id : said.add) changed = peer_types_.insert(id).second || changed;
  peer_all_ = said.all;
  if (less) purge_events();
  if (said.ack_wanted) ack_owed_ = said.sequence;
  if (theirs_ == Half::introduced) {
    theirs_ = Half::active;
    state_ = State::up;
    await_ack(now);
    pending_.emplace_back(CameUp{});
  } else if (changed || less) {
    pending_.emplace_back(SubscriptionsChanged{});
  }
}

void Session::on_ack(const control::SubscriptionsAck& ack, Instant now) {
  if (ack.sequence == 0 || ack.sequence < applied_ || ack.sequence > sequence_) {
    refuse("subscriptionsAck " + std::to_string(ack.sequence) + ": wanted " +
           std::to_string(applied_ > 0 ? applied_ : 1) + " to " + std::to_string(sequence_));
  }
  if (ack.sequence == applied_) return;
  applied_ = ack.sequence;
  // What is still owed has its time from now on.
  ack_deadline_.reset();
  await_ack(now);
  pending_.emplace_back(SubscriptionsApplied{ack.sequence});
}

void Session::on_credit(const control::Credit& credit, Instant now) {
  if (credit.events > 0) last_taken_ = now;
  event_window_.refill(credit.events);
  request_window_.refill(credit.requests);
}

void Session::on_failed(const control::Failed& failed) {
  if (!answers_open_request(failed.correlation)) return;
  pending_.emplace_back(FailedArrived{failed.correlation, failed.code, failed.type_name, failed.text});
}

}  // namespace lahja_capn
