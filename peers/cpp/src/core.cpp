// What users do and what they are told: subscriptions, events, answers, deliveries.
#include "core.h"

#include <algorithm>
#include <cstdlib>
#include <cxxabi.h>
#include <iostream>
#include <typeinfo>

namespace lahja_capn {

std::string type_name_of(const std::exception& error) {
  int status = 0;
  char* demangled = abi::__cxa_demangle(typeid(error).name(), nullptr, nullptr, &status);
  std::string name = status == 0 ? demangled : typeid(error).name();
  std::free(demangled);
  return name;
}

// --- subscriptions ---

std::uint64_t Core::add_handler(Handler handler) {
  handler.id = ++last_handler_;
  handlers_.push_back(std::make_shared<Handler>(std::move(handler)));
  subscriptions_of_ours_changed();
  return last_handler_;
}

std::uint64_t Core::subscribe(const EventType& type, Callback<void(MessageView&, const Origin&)> handler) {
  catalog_.declare(type);
  catalog_.events_wanted.insert(type.type_id());
  auto on_event = [handler = std::move(handler)](const EventType&, MessageView& view, const Origin& origin) mutable {
    handler(view, origin);
  };
  return add_handler({0, Handler::Kind::event, type.type_id(), std::move(on_event), {}});
}

std::uint64_t Core::subscribe_all(Callback<void(const EventType&, MessageView&, const Origin&)> handler) {
  catalog_.all_wanted = true;
  return add_handler({0, Handler::Kind::all_events, 0, std::move(handler), {}});
}

std::uint64_t Core::serve_requests(const EventType& type,
                                   Callback<void(MessageView&, const Origin&, Reply&)> handler) {
  if (catalog_.serves(type.type_id())) {
    throw LocalError(type.name() + " has a request handler already: cancel its subscription first");
  }
  catalog_.declare(type);
  catalog_.requests_served.insert(type.type_id());
  return add_handler({0, Handler::Kind::request, type.type_id(), {}, std::move(handler)});
}

void Core::cancel(std::uint64_t subscription) {
  const auto found = std::find_if(handlers_.begin(), handlers_.end(),
                                  [=](const auto& handler) { return handler->id == subscription; });
  if (found == handlers_.end() || (*found)->cancelled) return;
  // It may be running: it is removed when nothing runs.
  (*found)->cancelled = true;
  handlers_cancelled_ = true;
  const auto kind = (*found)->kind;
  const std::uint64_t type_id = (*found)->type_id;
  const bool others = std::any_of(handlers_.begin(), handlers_.end(), [=](const auto& handler) {
    return handler->kind == kind && handler->type_id == type_id && !handler->cancelled;
  });
  if (!others) {
    switch (kind) {
      case Handler::Kind::event: catalog_.events_wanted.erase(type_id); break;
      case Handler::Kind::all_events: catalog_.all_wanted = false; break;
      case Handler::Kind::request: catalog_.requests_served.erase(type_id); break;
    }
    subscriptions_of_ours_changed();
  }
  sweep_handlers();
}

void Core::sweep_handlers() {
  if (!handlers_cancelled_ || in_handler_) return;
  handlers_cancelled_ = false;
  handlers_.erase(std::remove_if(handlers_.begin(), handlers_.end(),
                                 [](const auto& handler) { return handler->cancelled; }),
                  handlers_.end());
}

bool Core::acknowledged(std::uint64_t subscription) const {
  if (std::none_of(handlers_.begin(), handlers_.end(),
                   [=](const auto& handler) { return handler->id == subscription; })) {
    return false;
  }
  return all_acknowledged();
}

bool Core::all_acknowledged() const {
  if (subscriptions_changed_) return connections_.empty();
  return std::all_of(connections_.begin(), connections_.end(), [](const auto& connection) {
    const auto& session = connection->session;
    return session.state() != Session::State::up || session.all_applied();
  });
}

void Core::subscriptions_of_ours_changed() {
  // Peers are told at the next write: several changes are one message.
  subscriptions_changed_ = true;
  wake_for_output();
}

// --- events out ---

bool Core::anyone_wants(const EventType& type) {
  return std::any_of(connections_.begin(), connections_.end(),
                     [&](const auto& connection) { return connection->session.wants(type); });
}

std::optional<std::size_t> Core::try_broadcast(const EventType& type, capnp::MessageBuilder& message) {
  // Beyond this much the stream is written to at once, not at the next poll().
  constexpr std::size_t eager_bytes = 64 * 1024;
  const std::uint16_t wire_id = catalog_.declare(type);
  for (const auto& connection : connections_) {
    if (connection->session.wants(type) && !connection->session.has_room()) {
      connection->session.room_wanted(Clock::now());
      return std::nullopt;
    }
  }
  SharedFrame frame;
  std::size_t peers = 0;
  for (const auto& connection : connections_) {
    if (!connection->session.wants(type)) continue;
    if (!frame) frame = std::make_shared<const OutFrame>(FrameKind::event, wire_id, message);
    if (connection->session.send_event(type, frame) == Session::Queued::queued) ++peers;
    if (connection->writable && connection->session.queued_bytes() >= eager_bytes) write(*connection);
  }
  if (peers > 0) wake_for_output();
  return peers;
}

std::size_t Core::broadcast(const EventType& type, capnp::MessageBuilder& message) {
  while (true) {
    if (const auto peers = try_broadcast(type, message)) return *peers;
    // What arrives meanwhile waits in deliveries_, which credit bounds.
    const bool outer = std::exchange(in_handler_, true);
    step(std::chrono::hours(1));
    in_handler_ = outer;
  }
}

// --- what arrived ---

void Core::came_up(const ConnectionPtr& connection) {
  deliver(What::other, [this, connection] {
    if (on_up) on_up(connection->session.peer().name);
  });
  subscriptions_changed(connection);
}

void Core::subscriptions_changed(const ConnectionPtr& connection) {
  // One look is enough, however often the peer changes its mind before it.
  if (std::exchange(connection->subscriptions_changed, true)) return;
  // Not at once: a peer that changes one of many ids in each message must not cost a look at all of them each time.
  deliveries_.push_back({What::other, [this, connection] {
    connection->subscriptions_changed = false;
    const auto now = connection->session.peer_types();
    const auto before = std::exchange(connection->told_types, now);
    if (!on_peer_subscription) return;
    const std::string& peer = connection->session.peer().name;
    for (const auto id : before) {
      if (now.count(id) == 0) on_peer_subscription(peer, id, false);
    }
    for (const auto id : now) {
      if (before.count(id) == 0) on_peer_subscription(peer, id, true);
    }
  }});
}

void Core::ended(const ConnectionPtr& connection, const Ended& why) {
  connection_lost(*connection);
  deliver(What::other, [this, connection, why] {
    if (why.was_up) {
      if (on_down) on_down(connection->session.peer().name, why);
    } else if (on_refused) {
      on_refused(why);
    }
  });
}

void Core::event_arrived(const ConnectionPtr& connection, EventArrived arrived) {
  if (!events_paused_ && !in_handler_ && deliveries_.empty()) {
    take_event(*connection, arrived);
    return;
  }
  arrived.frame.compact();
  deliver(What::event, [this, connection, arrived = std::move(arrived)] { take_event(*connection, arrived); });
}

void Core::take_event(Connection& connection, const EventArrived& arrived) {
  connection.session.event_taken(arrived.frame.size());
  const Origin origin{connection.session.peer().name, connection.id};
  const auto message = arrived.frame.message();
  // A handler may subscribe: the new one stands behind the others, and does not get this event.
  const std::size_t count = handlers_.size();
  for (std::size_t i = 0; i < count && i < handlers_.size(); ++i) {
    const auto handler = handlers_[i];
    const bool listens = handler->kind == Handler::Kind::all_events ||
                         (handler->kind == Handler::Kind::event && handler->type_id == arrived.type->type_id());
    if (handler->cancelled || !listens) continue;
    guarded([&] {
      // One for each: what one handler reads must not count against the limit of the next.
      MessageView view(message, content_options(message.size()));
      handler->on_event(*arrived.type, view, origin);
    });
  }
}

void Core::request_arrived(const ConnectionPtr& connection, RequestArrived arrived) {
  if (requests_paused_ || in_handler_ || !deliveries_.empty()) arrived.frame.compact();
  deliver(What::request, [this, connection, arrived = std::move(arrived)] {
    connection->session.request_taken(arrived.frame.size());
    const std::uint64_t number = arrived.frame.correlation();
    const auto found = std::find_if(handlers_.begin(), handlers_.end(), [&](const auto& handler) {
      return !handler->cancelled && handler->kind == Handler::Kind::request &&
             handler->type_id == arrived.type->type_id();
    });
    if (found == handlers_.end()) {
      connection->session.fail(number, FailedCode::no_handler, "", "nobody answers " + arrived.type->name() + " any more");
      return;
    }
    answer_request(*connection, **found, arrived.frame);
  });
}

void Core::answer_request(Connection& connection, Handler& handler, const Frame& frame) {
  const std::uint64_t number = frame.correlation();
  const Origin origin{connection.session.peer().name, connection.id};
  // A handler that throws drops its Reply on the way: the request must stay open until the failure is known.
  running_request_ = {connection.id, number};
  running_abandoned_ = false;
  std::optional<Failure> failure;
  {
    Reply reply(weak_from_this(), connection.id, number);
    try {
      const auto message = frame.message();
      MessageView view(message, content_options(message.size()));
      handler.on_request(view, origin, reply);
    } catch (const RequestError& error) {
      failure = Failure{"", FailedCode::handler_raised, error.type_name(), error.what()};
    } catch (const kj::Exception& error) {
      // Readers throw it, and hardly anything else does.
      failure = Failure{"", FailedCode::unreadable, "kj::Exception", error.getDescription().cStr()};
    } catch (const std::exception& error) {
      failure = Failure{"", FailedCode::handler_raised, type_name_of(error), error.what()};
    } catch (...) {
      failure = Failure{"", FailedCode::handler_raised, "", "an exception of an unknown type"};
    }
  }
  running_request_ = {0, 0};
  if (failure) {
    // Nothing happens if it answered before it threw.
    connection.session.fail(number, *failure->code, failure->type_name, failure->text);
  } else if (running_abandoned_) {
    connection.session.abandon(number);
  }
}

// --- deliveries ---

bool Core::paused(What what) const {
  return (what == What::event && events_paused_) || (what == What::request && requests_paused_);
}

void Core::deliver(What what, Callback<void()> run) {
  if (paused(what)) {
    held_.push_back({what, std::move(run)});
  } else if (in_handler_ || !deliveries_.empty()) {
    deliveries_.push_back({what, std::move(run)});
  } else {
    guarded(run);
  }
}

void Core::drain_deliveries() {
  if (in_handler_) return;
  // What is delivered may cause more: that waits for the next round, so that reading gets its turn.
  for (std::size_t count = deliveries_.size(); count > 0 && !deliveries_.empty(); --count) {
    Delivery next = std::move(deliveries_.front());
    deliveries_.pop_front();
    if (paused(next.what)) {
      held_.push_back(std::move(next));
    } else {
      guarded(next.run);
    }
  }
}

void Core::resume_events() {
  events_paused_ = false;
  resume();
}

void Core::resume_requests() {
  requests_paused_ = false;
  resume();
}

void Core::resume() {
  // What was held is older than what waits already. What is still paused will be held again.
  while (!held_.empty()) {
    deliveries_.push_front(std::move(held_.back()));
    held_.pop_back();
  }
  wake_for_output();
}

void Core::report(const std::string& what) {
  try {
    if (on_error) {
      on_error(what);
    } else {
      std::cerr << "lahja_capn: endpoint " << config_.name << ": " << what << std::endl;
    }
  } catch (...) {
    // Whoever reports errors has had its chance.
  }
}

// --- answers ---

void Core::answer(std::uint64_t id, std::uint64_t correlation, const EventType& type,
                  capnp::MessageBuilder& message) {
  const std::uint16_t wire_id = catalog_.declare(type);
  for (const auto& connection : connections_) {
    if (connection->id != id) continue;
    connection->session.respond(correlation, type,
                                std::make_shared<const OutFrame>(FrameKind::response, wire_id, message));
    wake_for_output();
  }
}

void Core::fail(std::uint64_t id, std::uint64_t correlation, FailedCode code, const std::string& type_name,
                const std::string& text) {
  for (const auto& connection : connections_) {
    if (connection->id != id) continue;
    connection->session.fail(correlation, code, type_name, text);
    wake_for_output();
  }
}

void Core::abandon(std::uint64_t id, std::uint64_t correlation) {
  if (running_request_ == std::make_pair(id, correlation)) {
    running_abandoned_ = true;
    return;
  }
  for (const auto& connection : connections_) {
    if (connection->id == id) connection->session.abandon(correlation);
  }
}

// --- who is there ---

ConnectionPtr Core::find_peer(const std::string& name) const {
  for (const auto& connection : connections_) {
    if (connection->session.state() == Session::State::up && connection->session.peer().name == name) {
      return connection;
    }
  }
  return nullptr;
}

Counters Core::counters() const {
  Counters sum = ended_counters_;
  for (const auto& connection : connections_) sum += connection->session.counters();
  return sum;
}

}  // namespace lahja_capn
