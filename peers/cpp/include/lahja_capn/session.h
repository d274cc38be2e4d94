// One connection as a value: bytes in, events out, bytes to send, next deadline. No sockets, no clocks: time comes in
// as an argument. docs/wire.md, sections 3 to 10. Endpoint runs sessions; use this class only to bring your own IO.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

#include "lahja_capn/types.h"
#include "lahja_capn/wire.h"

namespace lahja_capn {

using Clock = std::chrono::steady_clock;
using Instant = Clock::time_point;

// Who opened the stream.
enum class Role { connector, acceptor };

// What all sessions of one endpoint share, besides its catalog.
struct Settings {
  std::string name;
  // 16 random bytes, new for each start of an endpoint.
  std::string instance;
  std::string implementation = "lahja_capn C++";
  std::string version = "1";

  // Bytes of frame size.
  std::uint32_t frame_limit = 64u << 20;
  std::uint64_t event_credit = 16u << 20;
  std::uint64_t request_credit = 4u << 20;
  // What may wait to be sent to one peer; one event more may exceed it.
  std::size_t queue_bytes = 16u << 20;
  std::size_t open_requests = 16384;

  // 0: no pings of our own.
  std::chrono::milliseconds keepalive{60000};
  unsigned keepalive_misses = 3;
  std::chrono::milliseconds handshake_timeout{10000};
  // How long a peer may owe the acknowledgement of subscriptions.
  std::chrono::milliseconds ack_timeout{30000};
  // From a goodbye until the socket is closed whatever the peer does.
  std::chrono::milliseconds linger{2000};
  // How long a peer may take nothing of what waits for it while somebody waits for room in its queue.
  std::chrono::milliseconds stall_timeout{5000};
  // How long a peer has to answer when another one claims its name.
  std::chrono::milliseconds probe_timeout{1000};
};

// What the peer said in its hello.
struct PeerInfo {
  std::string name;
  std::string instance;
  std::string implementation;
  std::string version;
  std::uint32_t frame_limit = 0;
};

struct Counters {
  // Given to the stream, credit charged.
  std::uint64_t events_sent = 0;
  // Arrived and wanted.
  std::uint64_t events_received = 0;
  // Arrived, but of a type that is unknown, disabled or not subscribed.
  std::uint64_t events_skipped = 0;
  // Over the peer's frame limit, or still queued when the connection ended.
  std::uint64_t events_not_sent = 0;
  std::uint64_t requests_sent = 0;
  std::uint64_t requests_received = 0;
  // Answers to requests that were given up before.
  std::uint64_t late_answers = 0;

  Counters& operator+=(const Counters& more);
};

// --- what a session tells its owner ---

// Answer it with accept() or goodbye(); until then nothing more is read.
struct HelloArrived {};
struct CameUp {};
// Compare Session::peer_types() and peer_wants_all() with what they were.
struct SubscriptionsChanged {};
// The peer obeys our subscriptions up to this sequence.
struct SubscriptionsApplied {
  std::uint64_t sequence;
};
// Say event_taken(frame.size()) when its handler starts: that returns the credit.
struct EventArrived {
  const EventType* type;
  Frame frame;
};
// Say request_taken(frame.size()) when its handler starts; then respond() or fail(), once.
struct RequestArrived {
  const EventType* type;
  Frame frame;
};
struct ResponseArrived {
  std::uint64_t type_id;
  Frame frame;
};
struct FailedArrived {
  std::uint64_t correlation;
  FailedCode code;
  std::string type_name;
  std::string text;
};
// The last one. No code: the stream ended without goodbye.
struct Ended {
  std::optional<GoodbyeCode> code;
  std::string text;
  bool by_peer;
  bool was_up;
};

using SessionEvent = std::variant<HelloArrived, CameUp, SubscriptionsChanged, SubscriptionsApplied, EventArrived,
                                  RequestArrived, ResponseArrived, FailedArrived, Ended>;

namespace control {
struct Hello;
struct Declare;
struct Subscriptions;
struct SubscriptionsAck;
struct Credit;
struct Failed;
struct TableRow;
}  // namespace control

// One of the two windows of a direction: docs/wire.md, section 8.
class Window {
 public:
  void grant(std::uint64_t size);
  bool is_open() const { return unlimited_ || balance_ > 0; }
  void charge(std::size_t bytes);
  // Throws ProtocolError if the balance would be more than a balance can be.
  void refill(std::uint64_t bytes);

 private:
  bool unlimited_ = false;
  std::int64_t balance_ = 0;
};

// A window that we granted: knows what has come back, and when to say so.
class GrantedWindow {
 public:
  explicit GrantedWindow(std::uint64_t size);
  // Throws ProtocolError if there is no credit.
  void arrived(std::size_t bytes, const char* kind);
  void give_back(std::size_t bytes) { returned_ += bytes; }
  // Half of the window has come back; or the sender may be waiting for what has.
  bool due() const {
    return size_ != unlimited && returned_ > 0 && (returned_ >= size_ - size_ / 2 || !window_.is_open());
  }
  std::uint64_t take_due();

 private:
  std::uint64_t size_;
  std::uint64_t returned_ = 0;
  Window window_;
};

// Bytes on their way to the stream: small frames joined, large ones where they are.
class OutBuffer {
 public:
  void push(const SharedFrame& frame, std::uint64_t correlation);
  // Fills `into` with what is to be written next; returns how many pieces.
  std::size_t collect(kj::ArrayPtr<kj::ArrayPtr<const kj::byte>> into) const;
  void sent(std::size_t bytes);
  void clear();
  std::size_t size() const { return size_; }
  // Since the start: what was pushed, and what was sent.
  std::uint64_t pushed_total() const { return sent_ + size_; }
  std::uint64_t sent_total() const { return sent_; }

 private:
  struct Piece {
    std::vector<kj::byte> own;
    SharedFrame shared;
    std::size_t begin = 0;
    kj::ArrayPtr<const kj::byte> rest() const;
  };
  std::deque<Piece> pieces_;
  std::size_t size_ = 0;
  std::uint64_t sent_ = 0;
};

class Session {
 public:
  enum class State { handshake, up, closing, closed };
  enum class Queued { queued, full, too_large };

  // A connector names the endpoint that it wants to reach.
  Session(Role role, const Settings& settings, Catalog& catalog, Instant now, std::string wanted_name = "");
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  State state() const { return state_; }
  Role role() const { return role_; }
  const std::string& wanted_name() const { return wanted_name_; }
  // After HelloArrived.
  const PeerInfo& peer() const { return peer_; }
  bool accepted() const { return accepted_; }
  bool deciding() const { return deciding_; }
  const Counters& counters() const { return counters_; }

  // --- bytes in ---
  kj::ArrayPtr<kj::byte> receive_space();
  void received(std::size_t bytes, Instant now);
  std::uint64_t received_total() const { return received_total_; }
  void stream_ended(const std::string& why);
  // What happened next, one at a time. A frame in it is a view of the receive buffer that keeps it alive.
  std::optional<SessionEvent> next(Instant now);

  // --- what its owner decides ---
  void accept();
  void goodbye(GoodbyeCode code, const std::string& text, Instant now);
  void ping() { ping_owed_ = true; }

  // --- subscriptions ---
  // Tells the peer what changed in the catalog. Returns the sequence to wait for in SubscriptionsApplied.
  std::uint64_t update_subscriptions(Instant now);
  // The peer has acknowledged all that we asked for.
  bool all_applied() const { return applied_ >= ack_asked_; }
  const std::unordered_set<std::uint64_t>& peer_types() const { return peer_types_; }
  bool peer_wants_all() const { return peer_all_; }
  // The peer subscribes to the type, and the two hold the same layout of it.
  bool wants(const EventType& type);
  const Incompatibility* incompatibility(const EventType& type) { return table_.incompatibility(type); }

  // --- content out ---
  bool has_room() const { return event_bytes_ < settings_.queue_bytes; }
  // Somebody waits for room: from now on the peer must take something now and then.
  void room_wanted(Instant now);
  Queued send_event(const EventType& type, const SharedFrame& frame);
  // Returns the request's number; nothing if the queue is full or the frame over the peer's limit.
  std::optional<std::uint64_t> send_request(const SharedFrame& frame);
  void forget_request(std::uint64_t correlation);
  void respond(std::uint64_t correlation, const EventType& type, const SharedFrame& frame);
  void fail(std::uint64_t correlation, FailedCode code, const std::string& type_name, const std::string& text);
  // No answer will come, and none is sent: the requester's timeout ends it.
  void abandon(std::uint64_t correlation) { open_in_.erase(correlation); }

  void event_taken(std::size_t bytes) { granted_events_.give_back(bytes); }
  void request_taken(std::size_t bytes) { granted_requests_.give_back(bytes); }

  // Nothing waits to be sent.
  bool idle();
  bool waiting_for_credit() const { return !events_.empty() && !event_window_.is_open(); }
  std::size_t queued_bytes() const { return event_bytes_ + request_bytes_ + answer_bytes_ + out_.size(); }

  // --- bytes out ---
  std::size_t collect(kj::ArrayPtr<kj::ArrayPtr<const kj::byte>> into);
  void sent(std::size_t bytes, Instant now);
  // Everything up to our goodbye was sent: end our direction of the stream.
  bool output_ended() const { return state_ == State::closing && out_.size() == 0; }

  // --- time ---
  Instant deadline() const;
  void handle_time(Instant now);

 private:
  enum class Half { opening, introduced, active };

  struct QueuedEvent {
    std::uint64_t type_id;
    SharedFrame frame;
  };
  struct QueuedRequest {
    std::uint64_t correlation;
    SharedFrame frame;
  };
  struct QueuedAnswer {
    std::uint64_t correlation;
    SharedFrame frame;
    // Request credit that comes back when the answer is sent.
    std::size_t credit;
  };

  // session_receive.cpp
  void on_frame(Frame frame, Instant now);
  void on_control(const Frame& frame, Instant now);
  void on_hello(const control::Hello& hello);
  void on_declare(const control::Declare& declare);
  void on_subscriptions(const control::Subscriptions& subscriptions, Instant now);
  void on_ack(const control::SubscriptionsAck& ack, Instant now);
  void on_credit(const control::Credit& credit, Instant now);
  void on_failed(const control::Failed& failed);
  void on_event(const Row& row, Frame frame);
  void on_request(const Row& row, Frame frame);
  void on_response(const Row& row, Frame frame);
  bool answers_open_request(std::uint64_t correlation);

  // session.cpp
  void queue_hello();
  void declare_new();
  void tell_subscriptions();
  void await_ack(Instant now);
  void refuse_request(std::uint64_t correlation, std::size_t size, FailedCode code, const std::string& text);
  void purge_events();
  bool still_wanted(std::uint64_t type_id);
  void fill();
  void end(std::optional<GoodbyeCode> code, const std::string& text, bool by_peer);
  Instant keepalive_deadline() const;
  Instant stall_deadline() const;

  const Role role_;
  const Settings& settings_;
  Catalog& catalog_;
  const std::string wanted_name_;
  State state_ = State::handshake;
  bool deciding_ = false;
  bool accepted_ = false;
  PeerInfo peer_;
  Counters counters_;
  std::deque<SessionEvent> pending_;

  // Receiving.
  FrameReader reader_;
  Half theirs_ = Half::opening;
  std::uint64_t received_total_ = 0;
  // Content in bytes that arrived before our first subscriptions were sent is refused.
  std::optional<std::uint64_t> content_from_;
  PeerTable table_;
  GrantedWindow granted_events_;
  GrantedWindow granted_requests_;
  std::unordered_set<std::uint64_t> peer_types_;
  bool peer_all_ = false;
  std::uint64_t peer_sequence_ = 0;
  std::uint64_t last_request_in_ = 0;
  std::unordered_set<std::uint64_t> open_in_;

  // Sending.
  std::deque<SharedFrame> control_;
  std::deque<QueuedEvent> events_;
  std::deque<QueuedRequest> requests_;
  std::deque<QueuedAnswer> answers_;
  std::size_t event_bytes_ = 0;
  std::size_t request_bytes_ = 0;
  std::size_t answer_bytes_ = 0;
  std::unordered_map<std::uint64_t, std::size_t> queued_types_;
  bool ping_owed_ = false;
  bool pong_owed_ = false;
  std::uint64_t ack_owed_ = 0;
  OutBuffer out_;
  // Where in the stream the last event ends that was pushed.
  std::uint64_t events_end_ = 0;
  // Where in the stream our first subscriptions end; set when they are pushed.
  std::uint64_t subscriptions_end_ = 0;
  const void* first_subscriptions_ = nullptr;
  std::size_t declared_ = 0;
  Window event_window_;
  Window request_window_;
  std::unordered_set<std::uint64_t> told_types_;
  bool told_all_ = false;
  std::uint64_t sequence_ = 0;
  std::uint64_t applied_ = 0;
  std::uint64_t ack_asked_ = 0;
  std::uint64_t last_request_ = 0;
  std::uint64_t last_request_sent_ = 0;
  std::unordered_set<std::uint64_t> open_out_;

  // Time.
  Instant handshake_deadline_;
  Instant linger_deadline_{};
  Instant last_received_;
  // While the peer owes us an acknowledgement.
  std::optional<Instant> ack_deadline_;
  // When the peer last took something of what waits for it: bytes of events, or events whose credit came back.
  Instant last_taken_;
  bool room_wanted_ = false;
  unsigned asked_ = 0;
  Instant asked_at_;
};

}  // namespace lahja_capn
