// Requests of ours, and what they come to.
#include <algorithm>

#include "core.h"

namespace lahja_capn {

std::uint64_t Core::request(const EventType& type, const EventType& answer, capnp::MessageBuilder& message,
                            std::chrono::milliseconds timeout, Callback<void(RawOutcome&&)> done,
                            const std::string& peer) {
  const std::uint16_t wire_id = catalog_.declare(type);
  // So that a responder that holds another layout of the answer can say so.
  catalog_.declare(answer);
  const auto frame = std::make_shared<const OutFrame>(FrameKind::request, wire_id, message);
  const std::uint64_t id = ++last_asked_;
  Asked asked{answer.type_id(), answer.name(), Clock::now() + timeout, std::move(done), {}, {}};
  for (const auto& connection : connections_) {
    Session& session = connection->session;
    if (!session.wants(type) || (!peer.empty() && session.peer().name != peer)) continue;
    if (const auto number = session.send_request(frame)) {
      asked.open.emplace_back(connection->id, *number);
      asked_by_number_[{connection->id, *number}] = id;
    }
  }
  if (asked.open.empty()) {
    throw LocalError("nobody" + (peer.empty() ? std::string() : " named " + peer) + " can be asked " + type.name() +
                     " now: no connected peer answers it, or its queue is full, or it does not accept a frame of " +
                     std::to_string(frame->size()) + " bytes");
  }
  asked_.emplace(id, std::move(asked));
  wake_for_output();
  return id;
}

void Core::forget_request(std::uint64_t id) {
  const auto found = asked_.find(id);
  if (found == asked_.end()) return;
  for (const auto& open : found->second.open) {
    asked_by_number_.erase(open);
    for (const auto& connection : connections_) {
      if (connection->id == open.first) connection->session.forget_request(open.second);
    }
  }
  asked_.erase(found);
}

void Core::complete(std::uint64_t id, RawOutcome outcome) {
  const auto found = asked_.find(id);
  if (found == asked_.end()) return;
  auto done = std::move(found->second.done);
  forget_request(id);
  if (outcome.answer && (in_handler_ || !deliveries_.empty())) outcome.answer->compact();
  deliver(What::other, [done = std::move(done), outcome = std::move(outcome)]() mutable { done(std::move(outcome)); });
}

std::uint64_t Core::take_asked(std::uint64_t connection, std::uint64_t correlation) {
  const auto found = asked_by_number_.find({connection, correlation});
  if (found == asked_by_number_.end()) return 0;
  const std::uint64_t id = found->second;
  asked_by_number_.erase(found);
  return id;
}

void Core::response_arrived(Connection& connection, ResponseArrived arrived) {
  const std::uint64_t id = take_asked(connection.id, arrived.frame.correlation());
  if (id == 0) return;
  const Asked& asked = asked_.at(id);
  const std::string& peer = connection.session.peer().name;
  if (arrived.type_id != asked.answer_type) {
    const EventType* type = catalog_.find(arrived.type_id);
    one_failed(id, connection.id,
               Failure{peer, std::nullopt, "",
                       "answered with " + (type != nullptr ? type->name() : std::string("a type that is not known here")) +
                           ", wanted " + asked.answer_name},
               false);
    return;
  }
  complete(id, RawOutcome{OutcomeKind::answered, peer, std::move(arrived.frame), {}});
}

void Core::failed_arrived(Connection& connection, const FailedArrived& arrived) {
  const std::uint64_t id = take_asked(connection.id, arrived.correlation);
  if (id == 0) return;
  one_failed(id, connection.id,
             Failure{connection.session.peer().name, arrived.code, arrived.type_name, arrived.text}, false);
}

void Core::one_failed(std::uint64_t id, std::uint64_t connection, Failure failure, bool lost) {
  Asked& asked = asked_.at(id);
  asked.open.erase(std::remove_if(asked.open.begin(), asked.open.end(),
                                  [=](const auto& open) { return open.first == connection; }),
                   asked.open.end());
  asked.failures.push_back(std::move(failure));
  asked.all_lost = asked.all_lost && lost;
  if (!asked.open.empty()) return;
  const OutcomeKind kind = asked.all_lost ? OutcomeKind::lost : OutcomeKind::failed;
  complete(id, RawOutcome{kind, "", std::nullopt, std::move(asked.failures)});
}

void Core::connection_lost(Connection& connection) {
  // Completing one changes the map.
  std::vector<std::uint64_t> lost;
  for (auto at = asked_by_number_.lower_bound({connection.id, 0});
       at != asked_by_number_.end() && at->first.first == connection.id; ++at) {
    lost.push_back(at->second);
  }
  for (const auto id : lost) {
    const auto found = asked_.find(id);
    if (found == asked_.end()) continue;
    for (const auto& open : found->second.open) {
      if (open.first == connection.id) asked_by_number_.erase(open);
    }
    one_failed(id, connection.id,
               Failure{connection.session.peer().name, std::nullopt, "", "the connection ended before an answer came"},
               true);
  }
}

void Core::time_out_requests(Instant now) {
  std::vector<std::uint64_t> late;
  for (const auto& [id, asked] : asked_) {
    if (now >= asked.deadline) late.push_back(id);
  }
  for (const auto id : late) complete(id, RawOutcome{OutcomeKind::timed_out, "", std::nullopt, {}});
}

}  // namespace lahja_capn
