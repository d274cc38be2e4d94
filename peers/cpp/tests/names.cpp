// docs/wire.md, section 13: who may come in under a name.
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <memory>

#include "harness.h"
#include "lahja_capn/endpoint.h"

namespace {

using lahja_capn::Config;
using lahja_capn::Ended;
using lahja_capn::Endpoint;
using lahja_capn::GoodbyeCode;
using lahja_capn::Role;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds patience{20};

// An endpoint and how its connections ended.
struct Party {
  Party(const std::string& name, char instance) : endpoint(config(name, instance)) {
    endpoint.on_up([this](const std::string&) { ++ups; });
    endpoint.on_down([this](const std::string&, const Ended& why) { downs.push_back(why); });
    endpoint.on_refused([this](const Ended& why) { refusals.push_back(why); });
  }
  static Config config(const std::string& name, char instance) {
    Config config;
    config.name = name;
    config.instance = std::string(16, instance);
    config.probe_timeout = milliseconds(100);
    return config;
  }
  bool refused(GoodbyeCode code) const { return !refusals.empty() && refusals.back().code == code; }
  bool lost(GoodbyeCode code) const { return !downs.empty() && downs.back().code == code; }

  int ups = 0;
  std::vector<Ended> downs;
  std::vector<Ended> refusals;
  Endpoint endpoint;
};

void until(std::initializer_list<Party*> parties, const std::function<bool()>& done, const char* what) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) throw std::runtime_error(std::string("waited in vain: ") + what);
    std::vector<pollfd> fds;
    for (auto* party : parties) fds.push_back({party->endpoint.fd(), POLLIN, 0});
    ::poll(fds.data(), fds.size(), static_cast<int>(milliseconds(patience).count()));
    for (auto* party : parties) party->endpoint.poll();
  }
}

void join(Party& connector, Party& acceptor, const std::string& wanted) {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) throw std::runtime_error("no socket pair");
  connector.endpoint.adopt(fds[0], Role::connector, wanted);
  acceptor.endpoint.adopt(fds[1], Role::acceptor);
}

}  // namespace

TEST(the_name_of_another_endpoint_than_the_wanted_one_is_refused) {
  Party a("a", '1');
  Party b("b", '2');
  join(a, b, "c");
  until({&a, &b}, [&] { return a.refused(GoodbyeCode::wrong_name) && b.refused(GoodbyeCode::wrong_name); }, "refusals");
  CHECK(!a.refusals[0].by_peer);
  CHECK(b.refusals[0].by_peer);
}

TEST(ones_own_name_is_refused) {
  Party a("a", '1');
  Party other("a", '2');
  join(other, a, "a");
  until({&a, &other}, [&] { return a.refused(GoodbyeCode::name_in_use); }, "the refusal");
}

TEST(oneself_is_refused) {
  Party a("a", '1');
  Party mirror("a", '1');
  join(mirror, a, "a");
  until({&a, &mirror}, [&] { return a.refused(GoodbyeCode::duplicate); }, "the refusal");
}

TEST(a_second_claimant_of_a_living_name_is_refused) {
  Party server("server", 's');
  Party first("client", '1');
  Party second("client", '2');
  join(first, server, "server");
  until({&server, &first}, [&] { return server.ups == 1; }, "the first");
  join(second, server, "server");
  until({&server, &first, &second}, [&] { return second.refused(GoodbyeCode::name_in_use); }, "the refusal");
  CHECK_EQUAL(server.ups, 1);
  CHECK(first.downs.empty());
}

TEST(a_restarted_endpoint_takes_over_from_a_silent_one) {
  Party server("server", 's');
  Party first("client", '1');
  Party second("client", '2');
  Party third("client", '3');
  join(first, server, "server");
  until({&server, &first}, [&] { return server.ups == 1; }, "the first");
  // Nobody runs the first from here on. Two want its name: one gets it, and answers for it.
  join(second, server, "server");
  join(third, server, "server");
  until({&server, &second, &third}, [&] { return server.ups == 2; }, "the second");
  until({&server, &second, &third}, [&] { return third.refused(GoodbyeCode::name_in_use); }, "the third's refusal");
  CHECK(server.lost(GoodbyeCode::replaced));
  CHECK_EQUAL(second.ups, 1);
  until({&first}, [&] { return first.lost(GoodbyeCode::replaced); }, "the first's goodbye");
}

TEST(a_name_whose_holder_ends_during_the_probe_goes_to_the_newcomer) {
  Party server("server", 's');
  auto first = std::make_unique<Party>("client", '1');
  Party second("client", '2');
  server.endpoint.on_refused([](const Ended&) {});
  join(*first, server, "server");
  until({&server, first.get()}, [&] { return server.ups == 1; }, "the first");
  join(second, server, "server");
  second.endpoint.poll();
  server.endpoint.poll();
  first.reset();
  until({&server, &second}, [&] { return second.ups == 1; }, "the second");
}

TEST(a_newcomer_that_goes_away_is_forgotten) {
  Party server("server", 's');
  Party first("client", '1');
  auto second = std::make_unique<Party>("client", '2');
  join(first, server, "server");
  until({&server, &first}, [&] { return server.ups == 1; }, "the first");
  join(*second, server, "server");
  second->endpoint.poll();
  server.endpoint.poll();
  second.reset();
  until({&server}, [&] { return server.refusals.size() == 1; }, "the end of the newcomer");
  CHECK_EQUAL(server.ups, 1);
  CHECK(server.downs.empty());
}

TEST(a_newer_connection_of_the_same_endpoint_replaces_the_older) {
  Party server("server", 's');
  Party client("client", 'c');
  join(client, server, "server");
  until({&server, &client}, [&] { return server.ups == 1 && client.ups == 1; }, "up");
  join(client, server, "server");
  until({&server, &client}, [&] { return server.ups == 2 && client.ups == 2; }, "up again");
  CHECK(server.lost(GoodbyeCode::replaced));
  CHECK(client.lost(GoodbyeCode::replaced));
  CHECK_EQUAL(server.endpoint.peers().size(), std::size_t{1});
}

TEST(of_two_crossing_connections_the_one_opened_by_the_lower_name_survives) {
  Party a("a", '1');
  Party b("b", '2');
  join(b, a, "a");
  join(a, b, "b");
  until({&a, &b}, [&] { return a.ups == 1 && b.ups == 1 && a.refused(GoodbyeCode::duplicate); }, "the survivor");
  until({&a, &b}, [&] { return b.refused(GoodbyeCode::duplicate); }, "the other's end");
  CHECK_EQUAL(a.endpoint.peers().size(), std::size_t{1});
  CHECK_EQUAL(b.endpoint.peers().size(), std::size_t{1});
  CHECK(a.downs.empty());
  CHECK(b.downs.empty());
}

TEST(a_crossing_connection_that_comes_late_is_decided_the_same_way) {
  Party a("a", '1');
  Party b("b", '2');
  join(b, a, "a");
  until({&a, &b}, [&] { return a.ups == 1 && b.ups == 1; }, "up");
  // The lower name opened this one: it replaces the other.
  join(a, b, "b");
  until({&a, &b}, [&] { return a.ups == 2 && b.ups == 2; }, "up again");
  CHECK(a.lost(GoodbyeCode::duplicate));
  // And this one loses.
  join(b, a, "a");
  until({&a, &b}, [&] { return b.refused(GoodbyeCode::duplicate); }, "the refusal");
  CHECK_EQUAL(a.endpoint.peers().size(), std::size_t{1});
}
