// An endpoint: connects, serves, publishes, subscribes, asks and answers. One thread drives it, by run(), by poll(), or
// from a loop of its own that watches fd(). Only post(), stop() and ask() may be called from other threads.
#pragma once

#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "lahja_capn/callback.h"
#include "lahja_capn/messages.h"
#include "lahja_capn/names.h"
#include "lahja_capn/session.h"

namespace lahja_capn {

class Core;

using Config = Settings;

// Where an event or a request came from. Valid during the handler.
struct Origin {
  const std::string& peer;
  // Differs for each connection, also to the same peer.
  std::uint64_t connection;
};

// Ends what it stands for when it is destroyed or cancelled.
class [[nodiscard]] Subscription {
 public:
  Subscription() = default;
  Subscription(std::weak_ptr<Core> core, std::uint64_t id) : core_(std::move(core)), id_(id) {}
  Subscription(Subscription&& other) noexcept : core_(std::move(other.core_)), id_(std::exchange(other.id_, 0)) {}
  Subscription& operator=(Subscription&& other) noexcept;
  ~Subscription() { cancel(); }

  void cancel();
  // Leaves it to last as long as the endpoint does.
  void release() { id_ = 0; }
  // Every connected peer obeys it: each event it sends from now on is matched against it.
  bool acknowledged() const;

 private:
  std::weak_ptr<Core> core_;
  std::uint64_t id_ = 0;
};

// The right, and the duty, to answer one request. Destroyed unanswered, it sends nothing: the requester's timeout
// ends the request.
class Reply {
 public:
  Reply(std::weak_ptr<Core> core, std::uint64_t connection, std::uint64_t correlation)
      : core_(std::move(core)), connection_(connection), correlation_(correlation) {}
  Reply(Reply&& other) noexcept
      : core_(std::move(other.core_)),
        connection_(other.connection_),
        correlation_(std::exchange(other.correlation_, 0)) {}
  Reply& operator=(Reply&&) = delete;
  ~Reply();

  // The request's number on its connection.
  std::uint64_t correlation() const { return correlation_; }

  // `fill` gets Answer::Builder.
  template <typename Answer, typename Fill>
  void send(Fill&& fill) {
    send(event_type<Answer>(), *build<Answer>(std::forward<Fill>(fill)));
  }
  void send(const EventType& type, capnp::MessageBuilder& message);
  void fail(const std::string& type_name, const std::string& text, FailedCode code = FailedCode::handler_raised);

 private:
  std::weak_ptr<Core> core_;
  std::uint64_t connection_;
  // 0: answered.
  std::uint64_t correlation_;
};

struct PeerStatus {
  std::string name;
  bool waiting_for_credit = false;
  std::size_t queued_bytes = 0;
};

class Endpoint {
 public:
  explicit Endpoint(Config config);
  // Says goodbye if that needs no waiting. To end in good order call close() first.
  ~Endpoint();
  Endpoint(Endpoint&&) noexcept;
  Endpoint& operator=(Endpoint&&) = delete;

  // --- connections ---
  // Binds a Unix socket of mode 0600 and accepts connections. Throws IoError.
  void serve(const std::string& path);
  // Opens a connection to the endpoint of this name; on_up tells when it is up. Throws IoError if nobody serves there.
  void connect(const std::string& path, const std::string& name);
  // Takes over a connected stream socket.
  void adopt(int fd, Role role, const std::string& wanted_name = "");
  void disconnect(const std::string& peer);
  std::vector<std::string> peers() const;
  std::vector<PeerStatus> peer_status() const;

  void on_up(std::function<void(const std::string& peer)> handler);
  void on_down(std::function<void(const std::string& peer, const Ended& why)> handler);
  // A handshake that ended before the connection was up.
  void on_refused(std::function<void(const Ended& why)> handler);
  void on_peer_subscription(std::function<void(const std::string& peer, std::uint64_t type_id, bool on)> handler);
  // An exception left a handler. Without one it is written to stderr.
  void on_error(std::function<void(const std::string& what)> handler);

  // --- running ---
  // Until stop() was called and all connections are closed.
  void run();
  // Does what can be done now, waiting up to `timeout` for something to do. Runs handlers.
  void poll(std::chrono::milliseconds timeout = std::chrono::milliseconds(0));
  // Polls until `done` returns true; false if that took longer than `timeout`.
  bool run_until(const std::function<bool()>& done, std::chrono::milliseconds timeout);
  // Readable when poll() has something to do, timers included. For the caller's own loop.
  int fd() const;
  // Ends run() from any thread or handler.
  void stop();
  // Runs `work` on the endpoint's thread, from any thread.
  void post(Callback<void()> work);
  // Sends what is queued (2 s at most), says goodbye to all peers and waits for them to close (2 s at most).
  void close();
  // The same without waiting: poll() goes on until peers() is empty.
  void begin_close();

  // --- types ---
  // A type is told to peers when it is first used; or at once, if it should stand in the hello.
  void declare(const EventType& type);
  template <typename T>
  void declare() {
    declare(event_type<T>());
  }

  // --- events ---
  // `handler(T::Reader, const Origin&)`; both are valid during the call only. A field that cannot be read throws
  // kj::Exception, which may leave the handler: it is reported to on_error.
  template <typename T, typename Handler>
  Subscription subscribe(Handler handler) {
    return subscribe(event_type<T>(), [handler = std::move(handler)](MessageView& view, const Origin& origin) mutable {
      handler(view.root<T>(), origin);
    });
  }
  Subscription subscribe(const EventType& type, Callback<void(MessageView&, const Origin&)> handler);

  // Events of every type that this endpoint knows.
  Subscription subscribe_all(Callback<void(const EventType&, MessageView&, const Origin&)> handler);

  // `fill` gets T::Builder. Returns how many peers it was queued for. While a peer's queue is full it waits: reading
  // and writing go on, handlers do not run.
  template <typename T, typename Fill>
  std::size_t broadcast(Fill&& fill) {
    if (!anyone_wants(event_type<T>())) return 0;
    return broadcast(event_type<T>(), *build<T>(std::forward<Fill>(fill)));
  }
  std::size_t broadcast(const EventType& type, capnp::MessageBuilder& message);
  // Never waits: false, and nothing was sent to anybody, if the queue of a peer that wants it is full.
  template <typename T, typename Fill>
  bool try_broadcast(Fill&& fill) {
    if (!anyone_wants(event_type<T>())) return true;
    return try_broadcast(event_type<T>(), *build<T>(std::forward<Fill>(fill)));
  }
  bool try_broadcast(const EventType& type, capnp::MessageBuilder& message);
  bool anyone_wants(const EventType& type);
  template <typename T>
  bool anyone_wants() {
    return anyone_wants(event_type<T>());
  }

  // Events that arrive wait, and their credit with them, while requests and answers go on.
  void pause_events();
  void resume_events();
  // The same for requests that are to be answered here.
  void pause_requests();
  void resume_requests();

  // --- requests ---
  // Answers requests: `handler(Ask::Reader, Answer::Builder)`, or, to answer later or with a failure,
  // `handler(Ask::Reader, const Origin&, Reply)`. What it throws becomes the failure. One handler for each type.
  template <typename Ask, typename Answer, typename Handler>
  Subscription serve_requests(Handler handler) {
    declare<Answer>();
    return serve_requests(event_type<Ask>(), [handler = std::move(handler)](MessageView& view, const Origin& origin,
                                                                           Reply& reply) mutable {
      if constexpr (std::is_invocable_v<Handler&, typename Ask::Reader, typename Answer::Builder>) {
        const auto ask = view.root<Ask>();
        const auto answer = build<Answer>([&](typename Answer::Builder builder) { handler(ask, builder); });
        Reply(std::move(reply)).send(event_type<Answer>(), *answer);
      } else {
        handler(view.root<Ask>(), origin, std::move(reply));
      }
    });
  }
  Subscription serve_requests(const EventType& type,
                              Callback<void(MessageView&, const Origin&, Reply&)> handler);

  // Sends the request to every peer that answers it (or to `peer` alone); the first answer wins. `done` gets an
  // Outcome<Answer>&&, later. Throws LocalError if nobody answers the type.
  template <typename Ask, typename Answer, typename Fill, typename Done>
  std::uint64_t request(Fill&& fill, std::chrono::milliseconds timeout, Done done, const std::string& peer = "") {
    return request(event_type<Ask>(), event_type<Answer>(), *build<Ask>(std::forward<Fill>(fill)), timeout,
                   [done = std::move(done)](RawOutcome&& outcome) mutable {
                     done(Outcome<Answer>(std::move(outcome)));
                   },
                   peer);
  }
  std::uint64_t request(const EventType& type, const EventType& answer, capnp::MessageBuilder& message,
                        std::chrono::milliseconds timeout, Callback<void(RawOutcome&&)> done,
                        const std::string& peer = "");
  // Forgets the request: its `done` is not called.
  void forget_request(std::uint64_t id);

  // The same from any thread. The future throws what request() would have thrown, and std::future_error if the endpoint
  // is gone before the request is done.
  template <typename Ask, typename Answer, typename Fill>
  std::future<Outcome<Answer>> ask(Fill&& fill, std::chrono::milliseconds timeout) {
    auto promise = std::make_shared<std::promise<Outcome<Answer>>>();
    auto future = promise->get_future();
    post_request(event_type<Ask>(), event_type<Answer>(), build<Ask>(std::forward<Fill>(fill)), timeout,
                 [promise](RawOutcome&& outcome) { promise->set_value(Outcome<Answer>(std::move(outcome))); },
                 [promise](std::exception_ptr error) { promise->set_exception(error); });
    return future;
  }

  // Every connected peer obeys all subscriptions as they are now, and their ends.
  bool all_acknowledged() const;

  Counters counters() const;

 private:
  void post_request(const EventType& type, const EventType& answer,
                    std::unique_ptr<capnp::MallocMessageBuilder> message, std::chrono::milliseconds timeout,
                    Callback<void(RawOutcome&&)> done, Callback<void(std::exception_ptr)> refused);

  std::shared_ptr<Core> core_;
};

}  // namespace lahja_capn
