// The sending half of a session, its life and its end.
#include "lahja_capn/session.h"

#include <algorithm>

#include "control.h"

namespace lahja_capn {

namespace {

// How much is taken from the queues ahead of the stream. What was taken can be neither dropped nor overtaken.
constexpr std::size_t fill_bytes = 256 * 1024;
// Rows of one control frame: well below its limit of 1 MiB.
constexpr std::size_t rows_bytes = 512 * 1024;
// Ids in one `subscriptions`: 800,000 bytes.
constexpr std::size_t ids_at_once = 100000;

constexpr Instant never = Instant::max();

}  // namespace

Counters& Counters::operator+=(const Counters& more) {
  events_sent += more.events_sent;
  events_received += more.events_received;
  events_skipped += more.events_skipped;
  events_not_sent += more.events_not_sent;
  requests_sent += more.requests_sent;
  requests_received += more.requests_received;
  late_answers += more.late_answers;
  return *this;
}

Session::Session(Role role, const Settings& settings, Catalog& catalog, Instant now, std::string wanted_name)
    : role_(role),
      settings_(settings),
      catalog_(catalog),
      wanted_name_(std::move(wanted_name)),
      reader_(settings.frame_limit),
      granted_events_(settings.event_credit),
      granted_requests_(settings.request_credit),
      handshake_deadline_(now + settings.handshake_timeout),
      last_received_(now),
      last_taken_(now),
      asked_at_(now) {
  if (role_ == Role::connector) queue_hello();
}

void Session::queue_hello() {
  control::Hello hello;
  hello.name = settings_.name;
  hello.instance = settings_.instance;
  hello.implementation = settings_.implementation;
  hello.version = settings_.version;
  hello.frame_limit = settings_.frame_limit;
  hello.keepalive_ms = static_cast<std::uint32_t>(settings_.keepalive.count());
  hello.event_credit = settings_.event_credit;
  hello.request_credit = settings_.request_credit;
  std::size_t bytes = 0;
  while (declared_ < catalog_.rows().size() && bytes < rows_bytes) {
    const auto& next = catalog_.rows()[declared_++];
    bytes += control::encoded_size(next.row);
    hello.rows.push_back({next.wire_id, next.row});
  }
  control_.push_back(control::encode(hello));
}

void Session::declare_new() {
  while (declared_ < catalog_.rows().size()) {
    control::Declare declare;
    std::size_t bytes = 0;
    while (declared_ < catalog_.rows().size() && bytes < rows_bytes) {
      const auto& next = catalog_.rows()[declared_++];
      bytes += control::encoded_size(next.row);
      declare.rows.push_back({next.wire_id, next.row});
    }
    control_.push_back(control::encode(declare));
  }
}

// --- what its owner decides ---

void Session::accept() {
  if (state_ != State::handshake || !deciding_) return;
  deciding_ = false;
  accepted_ = true;
  if (role_ == Role::acceptor) queue_hello();
  tell_subscriptions();
  first_subscriptions_ = control_.back().get();
}

void Session::goodbye(GoodbyeCode code, const std::string& text, Instant now) {
  if (state_ == State::closing || state_ == State::closed) return;
  end(code, text, false);
  state_ = State::closing;
  linger_deadline_ = now + settings_.linger;
  out_.push(control::encode(control::Goodbye{code, text}), 0);
}

void Session::end(std::optional<GoodbyeCode> code, const std::string& text, bool by_peer) {
  pending_.emplace_back(Ended{code, text, by_peer, state_ == State::up});
  state_ = State::closed;
  deciding_ = false;
  counters_.events_not_sent += events_.size();
  control_.clear();
  events_.clear();
  requests_.clear();
  answers_.clear();
  event_bytes_ = request_bytes_ = answer_bytes_ = 0;
  queued_types_.clear();
  open_in_.clear();
  open_out_.clear();
  if (by_peer) out_.clear();
}

// --- subscriptions ---

std::uint64_t Session::update_subscriptions(Instant now) {
  if (!accepted_ || state_ == State::closing || state_ == State::closed) return 0;
  tell_subscriptions();
  await_ack(now);
  return sequence_;
}

// Starts the time that the peer has, unless it runs. Not before the connection is up: an acknowledgement follows the
// peer's own first subscriptions.
void Session::await_ack(Instant now) {
  if (state_ == State::up && !all_applied() && !ack_deadline_) ack_deadline_ = now + settings_.ack_timeout;
}

void Session::tell_subscriptions() {
  std::unordered_set<std::uint64_t> wanted = catalog_.events_wanted;
  wanted.insert(catalog_.requests_served.begin(), catalog_.requests_served.end());
  control::Subscriptions said;
  for (const auto id : wanted) {
    if (told_types_.count(id) == 0) said.add.push_back(id);
  }
  for (const auto id : told_types_) {
    if (wanted.count(id) == 0) said.remove.push_back(id);
  }
  said.all = catalog_.all_wanted;
  const bool first = sequence_ == 0;
  const bool changed = !said.add.empty() || !said.remove.empty() || said.all != told_all_;
  if (!first && !changed) return;
  declare_new();
  std::sort(said.add.begin(), said.add.end());
  std::sort(said.remove.begin(), said.remove.end());
  if (!first && said.add.size() + said.remove.size() > ids_at_once) {
    control::Subscriptions removed;
    removed.sequence = ++sequence_;
    removed.remove = std::move(said.remove);
    removed.all = said.all;
    said.remove.clear();
    control_.push_back(control::encode(removed));
  }
  said.sequence = ++sequence_;
  said.ack_wanted = changed;
  if (changed) ack_asked_ = sequence_;
  control_.push_back(control::encode(said));
  told_types_ = std::move(wanted);
  told_all_ = said.all;
}

bool Session::wants(const EventType& type) {
  return state_ == State::up && (peer_all_ || peer_types_.count(type.type_id()) > 0) &&
         table_.incompatibility(type) == nullptr;
}

bool Session::still_wanted(std::uint64_t type_id) {
  const EventType* type = catalog_.find(type_id);
  return type != nullptr && wants(*type);
}

void Session::purge_events() {
  const bool any = std::any_of(queued_types_.begin(), queued_types_.end(),
                               [this](const auto& queued) { return !still_wanted(queued.first); });
  if (!any) return;
  std::deque<QueuedEvent> kept;
  for (auto& event : events_) {
    if (still_wanted(event.type_id)) {
      kept.push_back(std::move(event));
    } else {
      event_bytes_ -= event.frame->size();
    }
  }
  events_ = std::move(kept);
  if (has_room()) room_wanted_ = false;
  for (auto at = queued_types_.begin(); at != queued_types_.end();) {
    at = still_wanted(at->first) ? std::next(at) : queued_types_.erase(at);
  }
}

// --- content out ---

Session::Queued Session::send_event(const EventType& type, const SharedFrame& frame) {
  if (frame->size() > peer_.frame_limit) {
    ++counters_.events_not_sent;
    return Queued::too_large;
  }
  if (!has_room()) return Queued::full;
  declare_new();
  event_bytes_ += frame->size();
  ++queued_types_[type.type_id()];
  events_.push_back({type.type_id(), frame});
  return Queued::queued;
}

void Session::room_wanted(Instant now) {
  if (!room_wanted_) last_taken_ = now;
  room_wanted_ = true;
}

std::optional<std::uint64_t> Session::send_request(const SharedFrame& frame) {
  if (state_ != State::up || frame->size() > peer_.frame_limit || request_bytes_ >= settings_.queue_bytes) {
    return std::nullopt;
  }
  declare_new();
  const std::uint64_t correlation = ++last_request_;
  request_bytes_ += frame->size();
  requests_.push_back({correlation, frame});
  open_out_.insert(correlation);
  return correlation;
}

void Session::forget_request(std::uint64_t correlation) {
  open_out_.erase(correlation);
  const auto queued = std::find_if(requests_.begin(), requests_.end(),
                                   [=](const QueuedRequest& request) { return request.correlation == correlation; });
  if (queued == requests_.end()) return;
  request_bytes_ -= queued->frame->size();
  requests_.erase(queued);
}

void Session::respond(std::uint64_t correlation, const EventType& type, const SharedFrame& frame) {
  if (open_in_.count(correlation) == 0) return;
  if (const Incompatibility* found = table_.incompatibility(type)) {
    fail(correlation, FailedCode::incompatible_type, "", found->text());
    return;
  }
  if (frame->size() > peer_.frame_limit) {
    fail(correlation, FailedCode::handler_raised, "FrameTooLarge",
         "the response " + type.name() + " takes " + std::to_string(frame->size()) + " bytes: the requester accepts " +
             std::to_string(peer_.frame_limit));
    return;
  }
  declare_new();
  open_in_.erase(correlation);
  answer_bytes_ += frame->size();
  answers_.push_back({correlation, frame, 0});
}

void Session::fail(std::uint64_t correlation, FailedCode code, const std::string& type_name, const std::string& text) {
  if (open_in_.erase(correlation) == 0) return;
  auto frame = control::encode(control::Failed{correlation, code, type_name, text});
  answer_bytes_ += frame->size();
  answers_.push_back({0, std::move(frame), 0});
}

void Session::refuse_request(std::uint64_t correlation, std::size_t size, FailedCode code, const std::string& text) {
  auto frame = control::encode(control::Failed{correlation, code, "", text});
  answer_bytes_ += frame->size();
  answers_.push_back({0, std::move(frame), size});
}

bool Session::idle() {
  return control_.empty() && events_.empty() && requests_.empty() && answers_.empty() && out_.size() == 0;
}

// --- bytes out ---

void Session::fill() {
  while ((state_ == State::handshake || state_ == State::up) && out_.size() < fill_bytes) {
    if (!control_.empty()) {
      out_.push(control_.front(), 0);
      if (control_.front().get() == first_subscriptions_) {
        subscriptions_end_ = out_.pushed_total();
        first_subscriptions_ = nullptr;
      }
      control_.pop_front();
    } else if (!accepted_) {
      return;
    } else if (pong_owed_) {
      pong_owed_ = false;
      out_.push(control::encode(control::Pong{}), 0);
    } else if (ping_owed_) {
      ping_owed_ = false;
      out_.push(control::encode(control::Ping{}), 0);
    } else if (ack_owed_ != 0) {
      out_.push(control::encode(control::SubscriptionsAck{ack_owed_}), 0);
      ack_owed_ = 0;
    } else if (granted_events_.due() || granted_requests_.due()) {
      control::Credit credit;
      if (granted_events_.due()) credit.events = granted_events_.take_due();
      if (granted_requests_.due()) credit.requests = granted_requests_.take_due();
      out_.push(control::encode(credit), 0);
    } else if (!answers_.empty()) {
      const auto& answer = answers_.front();
      granted_requests_.give_back(answer.credit);
      answer_bytes_ -= answer.frame->size();
      out_.push(answer.frame, answer.correlation);
      answers_.pop_front();
    } else if (!requests_.empty() && request_window_.is_open()) {
      const auto& request = requests_.front();
      request_window_.charge(request.frame->size());
      request_bytes_ -= request.frame->size();
      last_request_sent_ = request.correlation;
      ++counters_.requests_sent;
      out_.push(request.frame, request.correlation);
      requests_.pop_front();
    } else if (!events_.empty() && event_window_.is_open()) {
      const auto& event = events_.front();
      event_window_.charge(event.frame->size());
      event_bytes_ -= event.frame->size();
      const auto queued = queued_types_.find(event.type_id);
      if (--queued->second == 0) queued_types_.erase(queued);
      ++counters_.events_sent;
      out_.push(event.frame, 0);
      events_end_ = out_.pushed_total();
      events_.pop_front();
      if (has_room()) room_wanted_ = false;
    } else {
      return;
    }
  }
}

std::size_t Session::collect(kj::ArrayPtr<kj::ArrayPtr<const kj::byte>> into) {
  fill();
  return out_.collect(into);
}

void Session::sent(std::size_t bytes, Instant now) {
  if (out_.sent_total() < events_end_) last_taken_ = now;
  out_.sent(bytes);
  if (!content_from_ && subscriptions_end_ != 0 && out_.sent_total() >= subscriptions_end_) {
    content_from_ = received_total_;
  }
}

// --- time ---

Instant Session::keepalive_deadline() const {
  if (state_ != State::up || settings_.keepalive.count() == 0) return never;
  return (asked_ > 0 ? asked_at_ : last_received_) + settings_.keepalive;
}

Instant Session::stall_deadline() const {
  return state_ == State::up && room_wanted_ ? last_taken_ + settings_.stall_timeout : never;
}

Instant Session::deadline() const {
  switch (state_) {
    case State::handshake: return handshake_deadline_;
    case State::up: return std::min({keepalive_deadline(), stall_deadline(), ack_deadline_.value_or(never)});
    case State::closing: return linger_deadline_;
    case State::closed: break;
  }
  return never;
}

void Session::handle_time(Instant now) {
  if (now < deadline()) return;
  const auto seconds = [](auto duration) {
    return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(duration).count()) + " ms";
  };
  if (state_ == State::closing) {
    state_ = State::closed;
    out_.clear();
  } else if (state_ == State::handshake) {
    goodbye(GoodbyeCode::handshake_timeout, "not up after " + seconds(settings_.handshake_timeout), now);
  } else if (now >= stall_deadline()) {
    goodbye(GoodbyeCode::too_slow,
            "nothing taken of a full queue of " + std::to_string(event_bytes_) + " bytes for " +
                seconds(settings_.stall_timeout),
            now);
  } else if (now >= ack_deadline_.value_or(never)) {
    goodbye(GoodbyeCode::protocol_error,
            "subscriptions were not acknowledged within " + seconds(settings_.ack_timeout), now);
  } else if (now >= keepalive_deadline()) {
    // A peer is given up only after it left pings unanswered: if this process was stopped for long, it asks first.
    if (++asked_ < settings_.keepalive_misses) {
      asked_at_ = now;
      ping_owed_ = true;
    } else {
      goodbye(GoodbyeCode::keepalive_timeout,
              "no byte for " + seconds(now - last_received_) + ", and " +
                  std::to_string(settings_.keepalive_misses - 1) + " pings unanswered",
              now);
    }
  }
}

}  // namespace lahja_capn
