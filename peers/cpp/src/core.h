// What is behind Endpoint. Private to the library.
#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "lahja_capn/endpoint.h"

namespace lahja_capn {

// A file descriptor that is closed with its owner.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept;
  ~Fd() { reset(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void reset();

 private:
  int fd_ = -1;
};

struct Connection {
  Connection(std::uint64_t number, Fd stream, Role role, const Settings& settings, Catalog& catalog, Instant now,
             const std::string& wanted_name)
      : id(number), fd(std::move(stream)), session(role, settings, catalog, now, wanted_name) {}

  const std::uint64_t id;
  Fd fd;
  Session session;
  // What epoll was last asked to watch.
  std::uint32_t interest = 0;
  bool writable = true;
  bool write_failed = false;
  bool write_ended = false;
  // What the user was told of the peer's subscriptions.
  std::unordered_set<std::uint64_t> told_types;
  bool subscriptions_changed = false;
  // While another connection that holds our peer's name is asked whether it lives.
  struct Probe {
    std::shared_ptr<Connection> held;
    std::uint64_t received_before;
    Instant deadline;
  };
  std::optional<Probe> probe;

  bool alive() const {
    return session.state() == Session::State::handshake || session.state() == Session::State::up;
  }
};

using ConnectionPtr = std::shared_ptr<Connection>;

std::string type_name_of(const std::exception& error);

class Core : public std::enable_shared_from_this<Core> {
 public:
  explicit Core(Config config);
  ~Core();

  // loop.cpp
  void serve(const std::string& path);
  void connect(const std::string& path, const std::string& name);
  void adopt(Fd fd, Role role, const std::string& wanted_name);
  void disconnect(const std::string& peer);
  void run();
  void poll(std::chrono::milliseconds timeout);
  void begin_close();
  void close();
  void stop();
  void post(Callback<void()> work);
  int fd() const { return epoll_.get(); }

  // core.cpp
  std::uint64_t subscribe(const EventType& type, Callback<void(MessageView&, const Origin&)> handler);
  std::uint64_t subscribe_all(Callback<void(const EventType&, MessageView&, const Origin&)> handler);
  std::uint64_t serve_requests(const EventType& type,
                               Callback<void(MessageView&, const Origin&, Reply&)> handler);
  void cancel(std::uint64_t subscription);
  bool acknowledged(std::uint64_t subscription) const;
  bool all_acknowledged() const;
  void declare(const EventType& type) { catalog_.declare(type); }
  bool anyone_wants(const EventType& type);
  std::optional<std::size_t> try_broadcast(const EventType& type, capnp::MessageBuilder& message);
  std::size_t broadcast(const EventType& type, capnp::MessageBuilder& message);
  void pause_events() { events_paused_ = true; }
  void pause_requests() { requests_paused_ = true; }
  void resume_events();
  void resume_requests();
  void answer(std::uint64_t connection, std::uint64_t correlation, const EventType& type,
              capnp::MessageBuilder& message);
  void fail(std::uint64_t connection, std::uint64_t correlation, FailedCode code, const std::string& type_name,
            const std::string& text);
  void abandon(std::uint64_t connection, std::uint64_t correlation);
  Counters counters() const;
  ConnectionPtr find_peer(const std::string& name) const;
  template <typename Visit>
  void each_peer(Visit visit) const {
    for (const auto& connection : connections_) {
      if (connection->session.state() == Session::State::up) visit(*connection);
    }
  }

  // asking.cpp
  std::uint64_t request(const EventType& type, const EventType& answer, capnp::MessageBuilder& message,
                        std::chrono::milliseconds timeout, Callback<void(RawOutcome&&)> done,
                        const std::string& peer);
  void forget_request(std::uint64_t id);

  std::function<void(const std::string&)> on_up;
  std::function<void(const std::string&, const Ended&)> on_down;
  std::function<void(const Ended&)> on_refused;
  std::function<void(const std::string&, std::uint64_t, bool)> on_peer_subscription;
  std::function<void(const std::string&)> on_error;

 private:
  struct Handler {
    enum class Kind { event, all_events, request };

    std::uint64_t id;
    Kind kind;
    // 0 for all events.
    std::uint64_t type_id;
    Callback<void(const EventType&, MessageView&, const Origin&)> on_event;
    Callback<void(MessageView&, const Origin&, Reply&)> on_request;
    bool cancelled = false;
  };
  struct Asked {
    std::uint64_t answer_type;
    std::string answer_name;
    Instant deadline;
    Callback<void(RawOutcome&&)> done;
    // Where an answer is still open: connection, number.
    std::vector<std::pair<std::uint64_t, std::uint64_t>> open;
    std::vector<Failure> failures;
    bool all_lost = true;
  };
  enum class What { event, request, other };
  struct Delivery {
    What what;
    Callback<void()> run;
  };

  // loop.cpp
  void add(Fd fd, Role role, const std::string& wanted_name);
  void step(std::chrono::milliseconds timeout);
  int wait_ms(std::chrono::milliseconds timeout, Instant now) const;
  Instant next_deadline() const;
  void watch_listener(int operation);
  void accept_all();
  // True if everything that had arrived was read.
  bool read(const ConnectionPtr& connection);
  void look_at_broken(const ConnectionPtr& connection);
  void write(Connection& connection);
  void pump(const ConnectionPtr& connection);
  void handle(const ConnectionPtr& connection, SessionEvent event);
  void handle_times(Instant now);
  void go_on_closing(Instant now);
  void write_all();
  void close_ended();
  void watch(Connection& connection);
  void run_posted();
  void arm_timer();
  void wake();
  void wake_for_output();

  // deciding.cpp: docs/wire.md, section 13
  void decide(const ConnectionPtr& newcomer);
  void look_at_probes(Instant now);
  ConnectionPtr held(const std::string& name, const Connection* except) const;

  // core.cpp
  void came_up(const ConnectionPtr& connection);
  void subscriptions_changed(const ConnectionPtr& connection);
  void ended(const ConnectionPtr& connection, const Ended& why);
  void event_arrived(const ConnectionPtr& connection, EventArrived arrived);
  void take_event(Connection& connection, const EventArrived& arrived);
  void request_arrived(const ConnectionPtr& connection, RequestArrived arrived);
  void answer_request(Connection& connection, Handler& handler, const Frame& frame);
  void deliver(What what, Callback<void()> run);
  void drain_deliveries();
  bool paused(What what) const;
  void resume();
  // Runs what the user wrote: no exception passes.
  template <typename Run>
  void guarded(Run&& run) {
    const bool outer = std::exchange(in_handler_, true);
    try {
      run();
    } catch (const kj::Exception& error) {
      report(std::string("a handler: ") + error.getDescription().cStr());
    } catch (const std::exception& error) {
      report("a handler: " + type_name_of(error) + ": " + error.what());
    } catch (...) {
      report("a handler: an exception of an unknown type");
    }
    in_handler_ = outer;
    sweep_handlers();
  }
  void report(const std::string& what);
  std::uint64_t add_handler(Handler handler);
  void subscriptions_of_ours_changed();
  void sweep_handlers();

  // asking.cpp
  void response_arrived(Connection& connection, ResponseArrived arrived);
  void failed_arrived(Connection& connection, const FailedArrived& arrived);
  void connection_lost(Connection& connection);
  void one_failed(std::uint64_t id, std::uint64_t connection, Failure failure, bool lost);
  void complete(std::uint64_t id, RawOutcome outcome);
  void time_out_requests(Instant now);
  std::uint64_t take_asked(std::uint64_t connection, std::uint64_t correlation);

  const Config config_;
  Catalog catalog_;
  std::vector<ConnectionPtr> connections_;
  std::uint64_t last_connection_ = 0;
  Counters ended_counters_;

  std::vector<std::shared_ptr<Handler>> handlers_;
  std::uint64_t last_handler_ = 0;
  bool handlers_cancelled_ = false;
  bool subscriptions_changed_ = false;

  std::map<std::uint64_t, Asked> asked_;
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::uint64_t> asked_by_number_;
  std::uint64_t last_asked_ = 0;

  std::deque<Delivery> deliveries_;
  std::deque<Delivery> held_;
  bool events_paused_ = false;
  bool requests_paused_ = false;
  // A handler runs: nothing may be delivered below it.
  bool in_handler_ = false;
  unsigned depth_ = 0;
  // The request whose handler runs: connection and number. Its Reply may be gone before the handler has ended.
  std::pair<std::uint64_t, std::uint64_t> running_request_{0, 0};
  bool running_abandoned_ = false;

  Fd epoll_;
  Fd wake_;
  Fd timer_;
  Fd listener_;
  std::string listener_path_;
  // Set while no more connections can be taken.
  Instant listener_paused_until_ = Instant::max();
  Instant timer_armed_ = Instant::max();
  bool output_waits_ = false;
  bool closing_ = false;
  Instant drain_deadline_{};
  std::atomic<bool> stopping_{false};
  std::mutex posted_mutex_;
  std::vector<Callback<void()>> posted_;
};

}  // namespace lahja_capn
