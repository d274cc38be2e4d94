// Names, takeover, crossing connections: docs/wire.md, section 13.
#include <algorithm>

#include "core.h"

namespace lahja_capn {

ConnectionPtr Core::held(const std::string& name, const Connection* except) const {
  for (const auto& connection : connections_) {
    if (connection.get() != except && connection->alive() && connection->session.accepted() &&
        connection->session.peer().name == name) {
      return connection;
    }
  }
  return nullptr;
}

void Core::decide(const ConnectionPtr& newcomer) {
  Session& session = newcomer->session;
  const PeerInfo& peer = session.peer();
  const Instant now = Clock::now();
  newcomer->probe.reset();
  if (closing_) {
    session.goodbye(GoodbyeCode::shutdown, "this endpoint stops", now);
    return;
  }
  if (peer.name == config_.name) {
    session.goodbye(GoodbyeCode::name_in_use, peer.name + " is this endpoint's own name", now);
    return;
  }
  const bool own_is_lower = config_.name < peer.name;
  if (session.role() == Role::acceptor) {
    for (const auto& attempt : connections_) {
      const bool crosses = attempt->alive() && attempt->session.role() == Role::connector &&
                           attempt->session.wanted_name() == peer.name && !attempt->session.accepted();
      if (!crosses) continue;
      Session& loser = own_is_lower ? session : attempt->session;
      loser.goodbye(GoodbyeCode::duplicate, "two connections crossed: the one opened by the lower name survives", now);
      if (own_is_lower) return;
    }
  }
  const ConnectionPtr before = held(peer.name, newcomer.get());
  if (!before) {
    session.accept();
    return;
  }
  if (before->session.peer().instance != peer.instance) {
    // A restart, or a second claimant: only the one that holds the name can tell.
    before->session.ping();
    newcomer->probe = Connection::Probe{before, before->session.received_total(), now + config_.probe_timeout};
    return;
  }
  if (before->session.role() != session.role()) {
    const bool held_opened_by_lower = (before->session.role() == Role::connector) == own_is_lower;
    if (held_opened_by_lower) {
      session.goodbye(GoodbyeCode::duplicate, "connected already, by the connection that the lower name opened", now);
      return;
    }
    before->session.goodbye(GoodbyeCode::duplicate, "two connections crossed: this one was opened by the higher name",
                            now);
  } else {
    before->session.goodbye(GoodbyeCode::replaced, "a newer connection of " + peer.name + " took over", now);
  }
  session.accept();
}

void Core::look_at_probes(Instant now) {
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    const auto newcomer = connections_[i];
    if (!newcomer->probe) continue;
    if (!newcomer->session.deciding()) {
      newcomer->probe.reset();
      continue;
    }
    const auto probe = *newcomer->probe;
    if (held(newcomer->session.peer().name, newcomer.get()) != probe.held) {
      decide(newcomer);
    } else if (probe.held->session.received_total() != probe.received_before) {
      newcomer->probe.reset();
      newcomer->session.goodbye(GoodbyeCode::name_in_use,
                                "another endpoint named " + newcomer->session.peer().name + " is alive", now);
    } else if (now >= probe.deadline) {
      newcomer->probe.reset();
      probe.held->session.goodbye(GoodbyeCode::replaced, "did not answer when another endpoint claimed its name", now);
      newcomer->session.accept();
    }
  }
}

}  // namespace lahja_capn
