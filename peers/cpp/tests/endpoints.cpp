// Endpoints on real sockets, all in this thread.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <poll.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <thread>

#include "conformance.capnp.h"
#include "harness.h"
#include "lahja_capn/endpoint.h"

namespace {

using conformance::Answer;
using conformance::Ask;
using conformance::Blob;
using conformance::Count;
using conformance::Everything;
using lahja_capn::Config;
using lahja_capn::Endpoint;
using lahja_capn::Ended;
using lahja_capn::GoodbyeCode;
using lahja_capn::Origin;
using lahja_capn::Outcome;
using lahja_capn::OutcomeKind;
using lahja_capn::Reply;
using std::chrono::milliseconds;
using std::chrono::seconds;

// Longer than anything here takes.
constexpr seconds patience{20};

Config named(const std::string& name) {
  Config config;
  config.name = name;
  return config;
}

// A folder that is gone with it.
struct Folder {
  Folder() {
    char name[] = "/tmp/lahjaXXXXXX";
    if (::mkdtemp(name) == nullptr) throw std::runtime_error("no folder");
    path = name;
  }
  ~Folder() {
    ::unlink(socket().c_str());
    ::rmdir(path.c_str());
  }
  std::string socket() const { return path + "/s"; }
  std::string path;
};

// Polls all until `done`.
void until(std::initializer_list<Endpoint*> endpoints, const std::function<bool()>& done, const char* what) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) throw std::runtime_error(std::string("waited in vain: ") + what);
    std::vector<pollfd> fds;
    for (auto* endpoint : endpoints) fds.push_back({endpoint->fd(), POLLIN, 0});
    // fd() alone must say when there is something to do.
    ::poll(fds.data(), fds.size(), static_cast<int>(milliseconds(patience).count()));
    for (auto* endpoint : endpoints) endpoint->poll();
  }
}

struct Pair {
  explicit Pair(Config server_config = named("server"), Config client_config = named("client"))
      : server(std::move(server_config)), client(std::move(client_config)) {
    server.on_down([this](const std::string&, const Ended& why) { server_ends.push_back(why); });
    client.on_down([this](const std::string&, const Ended& why) { client_ends.push_back(why); });
  }
  void connect() {
    server.serve(folder.socket());
    client.connect(folder.socket(), "server");
    wait([this] { return client.peers().size() == 1 && server.peers().size() == 1; }, "both up");
    wait([this] { return client.all_acknowledged() && server.all_acknowledged(); }, "acknowledgements");
  }
  void wait(const std::function<bool()>& done, const char* what) { until({&server, &client}, done, what); }

  Folder folder;
  std::vector<Ended> server_ends;
  std::vector<Ended> client_ends;
  Endpoint server;
  Endpoint client;
};

void fill_number(Endpoint& endpoint, std::uint64_t number) {
  endpoint.broadcast<Count>([=](Count::Builder count) { count.setNumber(number); });
}

}  // namespace

TEST(an_event_reaches_who_subscribes_and_its_origin_is_known) {
  Pair pair;
  std::string peer;
  std::uint64_t number = 0;
  const auto subscription = pair.server.subscribe<Count>([&](Count::Reader count, const Origin& origin) {
    number = count.getNumber();
    peer = origin.peer;
  });
  pair.connect();
  CHECK(subscription.acknowledged());
  fill_number(pair.client, 7);
  pair.wait([&] { return number == 7; }, "the event");
  CHECK_EQUAL(peer, std::string("client"));
}

TEST(a_cancelled_subscription_gets_nothing_more) {
  Pair pair;
  int seen = 0;
  auto subscription = pair.server.subscribe<Count>([&](Count::Reader, const Origin&) { ++seen; });
  pair.connect();
  fill_number(pair.client, 1);
  pair.wait([&] { return seen == 1; }, "the event");
  subscription.cancel();
  pair.wait([&] { return !pair.client.anyone_wants<Count>(); }, "the end of the subscription");
  fill_number(pair.client, 2);
  bool answered = false;
  const auto serving = pair.server.serve_requests<Ask, Answer>([](Ask::Reader, Answer::Builder) {});
  pair.wait([&] { return pair.client.anyone_wants<Ask>(); }, "the subscription to requests");
  pair.client.request<Ask, Answer>([](Ask::Builder) {}, patience, [&](Outcome<Answer>&&) { answered = true; });
  pair.wait([&] { return answered; }, "an answer");
  CHECK_EQUAL(seen, 1);
}

TEST(requests_are_answered_fail_time_out_and_get_lost) {
  Pair pair;
  std::vector<Reply> kept;
  const auto serving = pair.server.serve_requests<Ask, Answer>([&](Ask::Reader ask, const Origin&, Reply reply) {
    switch (ask.getNumber()) {
      case 1:
        reply.send<Answer>([&](Answer::Builder answer) { answer.setNumber(2); });
        return;
      case 2: throw std::out_of_range("no such thing");
      case 3: kept.push_back(std::move(reply)); return;
      case 4: throw lahja_capn::RequestError("OwnName", "own text");
      default: return;
    }
  });
  pair.connect();
  std::vector<Outcome<Answer>> outcomes;
  const auto ask = [&](std::uint64_t number, milliseconds timeout) {
    pair.client.request<Ask, Answer>([=](Ask::Builder request) { request.setNumber(number); }, timeout,
                                     [&](Outcome<Answer>&& outcome) { outcomes.push_back(std::move(outcome)); });
    const std::size_t wanted = outcomes.size() + 1;
    return [&outcomes, wanted] { return outcomes.size() == wanted; };
  };
  pair.wait(ask(1, patience), "an answer");
  CHECK(outcomes.back().kind() == OutcomeKind::answered);
  CHECK_EQUAL(outcomes.back().value().getNumber(), std::uint64_t{2});
  pair.wait(ask(2, patience), "a failure");
  CHECK(outcomes.back().kind() == OutcomeKind::failed);
  CHECK_EQUAL(outcomes.back().failures().at(0).type_name, std::string("std::out_of_range"));
  CHECK_EQUAL(outcomes.back().failures().at(0).text, std::string("no such thing"));
  CHECK_THROWS(lahja_capn::Error, outcomes.back().value());
  pair.wait(ask(4, patience), "another failure");
  CHECK_EQUAL(outcomes.back().failures().at(0).type_name, std::string("OwnName"));
  pair.wait(ask(3, milliseconds(20)), "a timeout");
  CHECK(outcomes.back().kind() == OutcomeKind::timed_out);
  // Too late, and no harm.
  kept.at(0).send<Answer>([](Answer::Builder) {});
  pair.wait([&] { return pair.client.counters().late_answers == 1; }, "the late answer");
  const auto lost = ask(3, patience);
  pair.wait([&] { return kept.size() == 2; }, "the request");
  pair.server.disconnect("client");
  pair.wait(lost, "the loss");
  CHECK(outcomes.back().kind() == OutcomeKind::lost);
}

TEST(an_answer_over_the_frame_limit_of_the_requester_is_a_failure) {
  auto client_config = named("client");
  client_config.frame_limit = 1024;
  Pair pair(named("server"), client_config);
  const auto serving = pair.server.serve_requests<Ask, Answer>(
      [](Ask::Reader, Answer::Builder answer) { answer.setText(std::string(2000, 'x')); });
  pair.connect();
  std::string type_name;
  pair.client.request<Ask, Answer>([](Ask::Builder) {}, patience, [&](Outcome<Answer>&& outcome) {
    type_name = outcome.failures().empty() ? outcome.text() : outcome.failures()[0].type_name;
  });
  pair.wait([&] { return !type_name.empty(); }, "the failure");
  CHECK_EQUAL(type_name, std::string("FrameTooLarge"));
}

TEST(a_request_to_nobody_is_refused_at_once) {
  Pair pair;
  pair.connect();
  CHECK_THROWS(lahja_capn::LocalError, (pair.client.request<Ask, Answer>(
                                           [](Ask::Builder) {}, patience, [](Outcome<Answer>&&) {})));
}

TEST(a_future_is_fulfilled_from_the_thread_that_runs_the_endpoint) {
  Pair pair;
  const auto serving = pair.server.serve_requests<Ask, Answer>(
      [](Ask::Reader ask, Answer::Builder answer) { answer.setNumber(ask.getNumber() + 1); });
  pair.connect();
  std::thread server([&] { pair.server.run(); });
  std::thread client([&] { pair.client.run(); });
  auto future = pair.client.ask<Ask, Answer>([](Ask::Builder ask) { ask.setNumber(41); }, patience);
  auto outcome = future.get();
  const bool answered = static_cast<bool>(outcome);
  const std::uint64_t number = answered ? outcome.value().getNumber() : 0;
  pair.client.stop();
  client.join();
  pair.server.stop();
  server.join();
  CHECK_EQUAL(number, std::uint64_t{42});
  CHECK(pair.server_ends.at(0).code == GoodbyeCode::shutdown);
}

TEST(an_exception_in_a_handler_is_reported_and_the_connection_goes_on) {
  Pair pair;
  std::vector<std::string> errors;
  std::uint64_t last = 0;
  pair.server.on_error([&](const std::string& what) { errors.push_back(what); });
  const auto subscription = pair.server.subscribe<Count>([&](Count::Reader count, const Origin&) {
    last = count.getNumber();
    if (last == 1) throw std::runtime_error("one is too few");
  });
  pair.connect();
  fill_number(pair.client, 1);
  fill_number(pair.client, 2);
  pair.wait([&] { return last == 2; }, "the second event");
  CHECK_EQUAL(errors.size(), std::size_t{1});
  CHECK(errors[0].find("one is too few") != std::string::npos);
}

TEST(a_publisher_waits_for_a_slow_listener_and_nothing_is_lost) {
  auto server_config = named("server");
  server_config.event_credit = 4000;
  auto client_config = named("client");
  client_config.queue_bytes = 4000;
  Pair pair(server_config, client_config);
  std::uint64_t next = 0;
  bool in_order = true;
  const auto subscription = pair.server.subscribe<Count>([&](Count::Reader count, const Origin&) {
    in_order = in_order && count.getNumber() == next;
    ++next;
  });
  pair.connect();
  pair.server.pause_events();
  constexpr std::uint64_t events = 20000;
  std::uint64_t queued = 0;
  while (pair.client.try_broadcast<Count>([&](Count::Builder count) { count.setNumber(queued); })) ++queued;
  // One window, one queue, and one event over each.
  CHECK(queued <= 2 * (4000 / 40 + 1));
  // It waits while the server's thread takes its time; handlers of its own do not run below broadcast().
  pair.server.resume_events();
  std::thread server([&] { pair.server.run_until([&] { return next == events; }, patience); });
  for (; queued < events; ++queued) fill_number(pair.client, queued);
  pair.client.run_until([&] { return pair.client.peer_status().at(0).queued_bytes == 0; }, patience);
  server.join();
  CHECK_EQUAL(next, events);
  CHECK(in_order);
}

TEST(held_events_wait_while_requests_pass) {
  Pair pair;
  int events = 0;
  const auto subscription = pair.server.subscribe<Count>([&](Count::Reader, const Origin&) { ++events; });
  const auto serving = pair.server.serve_requests<Ask, Answer>([](Ask::Reader, Answer::Builder) {});
  pair.connect();
  pair.server.pause_events();
  fill_number(pair.client, 1);
  bool answered = false;
  pair.client.request<Ask, Answer>([](Ask::Builder) {}, patience, [&](Outcome<Answer>&&) { answered = true; });
  pair.wait([&] { return answered && pair.server.counters().events_received == 1; }, "the answer");
  CHECK_EQUAL(events, 0);
  pair.server.resume_events();
  pair.wait([&] { return events == 1; }, "the event");
}

TEST(a_large_event_arrives_whole) {
  Pair pair;
  std::size_t size = 0;
  bool right = true;
  const auto subscription = pair.server.subscribe<Blob>([&](Blob::Reader blob, const Origin&) {
    const auto data = blob.getData();
    for (std::size_t i = 0; i < data.size(); ++i) right = right && data[i] == static_cast<kj::byte>(i * 7);
    size = data.size();
  });
  pair.connect();
  constexpr std::size_t bytes = 3000001;
  pair.client.broadcast<Blob>([](Blob::Builder blob) {
    auto data = blob.initData(bytes);
    for (std::size_t i = 0; i < bytes; ++i) data[i] = static_cast<kj::byte>(i * 7);
  });
  pair.wait([&] { return size != 0; }, "the blob");
  CHECK_EQUAL(size, bytes);
  CHECK(right);
}

TEST(an_event_over_the_frame_limit_of_a_peer_is_counted_and_not_sent) {
  auto server_config = named("server");
  server_config.frame_limit = 1024;
  Pair pair(server_config);
  std::size_t blobs = 0;
  const auto subscription = pair.server.subscribe<Blob>([&](Blob::Reader, const Origin&) { ++blobs; });
  pair.connect();
  CHECK_EQUAL(pair.client.broadcast<Blob>([](Blob::Builder blob) { blob.initData(2000); }), std::size_t{0});
  CHECK_EQUAL(pair.client.broadcast<Blob>([](Blob::Builder blob) { blob.initData(10); }), std::size_t{1});
  pair.wait([&] { return blobs == 1; }, "the small one");
  CHECK_EQUAL(pair.client.counters().events_not_sent, std::uint64_t{1});
}

TEST(what_a_handler_reads_stays_while_it_waits_for_room) {
  auto server_config = named("server");
  server_config.queue_bytes = 1000;
  auto client_config = named("client");
  client_config.event_credit = 1000;
  Pair pair(server_config, client_config);
  constexpr std::size_t bytes = 50000;
  bool intact = false;
  std::uint64_t counted = 0;
  const auto blobs = pair.server.subscribe<Blob>([&](Blob::Reader blob, const Origin&) {
    const auto data = blob.getData();
    // Meanwhile the stream is read on, many times the size of the buffer that `data` lies in.
    for (std::uint64_t i = 0; i < 2000; ++i) fill_number(pair.server, i);
    intact = data.size() == bytes;
    for (const kj::byte byte : data) intact = intact && byte == 7;
  });
  const auto ignored = pair.server.subscribe<Count>([&](Count::Reader, const Origin&) { ++counted; });
  std::uint64_t seen = 0;
  const auto counts = pair.client.subscribe<Count>([&](Count::Reader, const Origin&) { ++seen; });
  pair.connect();
  std::thread client([&] {
    pair.client.broadcast<Blob>([](Blob::Builder blob) {
      auto data = blob.initData(bytes);
      for (kj::byte& byte : data) byte = 7;
    });
    for (std::uint64_t i = 0; i < 20000; ++i) fill_number(pair.client, i);
    pair.client.run_until([&] { return seen == 2000 && pair.client.peer_status().at(0).queued_bytes == 0; },
                          patience);
  });
  pair.server.run_until([&] { return counted == 20000 && pair.server.peer_status().at(0).queued_bytes == 0; }, patience);
  client.join();
  CHECK(intact);
  CHECK_EQUAL(seen, std::uint64_t{2000});
  CHECK_EQUAL(counted, std::uint64_t{20000});
}

TEST(close_sends_what_is_queued_and_says_goodbye) {
  // A window of ten events: the rest has to wait for credit.
  auto server_config = named("server");
  server_config.event_credit = 400;
  Pair pair(server_config);
  int seen = 0;
  const auto subscription = pair.server.subscribe<Count>([&](Count::Reader, const Origin&) { ++seen; });
  pair.connect();
  std::thread server([&] { pair.server.run_until([&] { return !pair.server_ends.empty(); }, patience); });
  for (std::uint64_t i = 0; i < 1000; ++i) fill_number(pair.client, i);
  pair.client.close();
  server.join();
  CHECK_EQUAL(seen, 1000);
  CHECK(pair.server_ends.at(0).code == GoodbyeCode::shutdown);
  CHECK(pair.server_ends.at(0).by_peer);
}

TEST(the_socket_file_is_private_and_goes_away_and_a_dead_one_is_replaced) {
  Folder folder;
  {
    // A socket that nobody listens on any more.
    const int dead = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    folder.socket().copy(address.sun_path, sizeof(address.sun_path) - 1);
    CHECK_EQUAL(::bind(dead, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    ::close(dead);
  }
  {
    Endpoint first(named("first"));
    first.serve(folder.socket());
    struct stat found {};
    CHECK_EQUAL(::stat(folder.socket().c_str(), &found), 0);
    CHECK_EQUAL(found.st_mode & 0777, mode_t{0600});
    Endpoint second(named("second"));
    CHECK_THROWS(lahja_capn::IoError, second.serve(folder.socket()));
  }
  struct stat found {};
  CHECK_EQUAL(::stat(folder.socket().c_str(), &found), -1);
}

TEST(a_file_that_is_no_socket_is_not_replaced) {
  Folder folder;
  std::ofstream(folder.socket()) << "precious";
  Endpoint endpoint(named("server"));
  CHECK_THROWS(lahja_capn::IoError, endpoint.serve(folder.socket()));
  std::string content;
  std::ifstream(folder.socket()) >> content;
  CHECK_EQUAL(content, std::string("precious"));
}

TEST(mistakes_of_the_user_are_refused_with_facts) {
  CHECK_THROWS(lahja_capn::LocalError, Endpoint(named("-no-name")));
  CHECK_THROWS(lahja_capn::LocalError, Endpoint(named(std::string(101, 'x'))));
  Endpoint endpoint(named("server"));
  CHECK_THROWS(lahja_capn::IoError, endpoint.serve(std::string(200, 'x')));
  CHECK_THROWS(lahja_capn::IoError, endpoint.connect("/nowhere/at/all", "other"));
  CHECK_THROWS(lahja_capn::LocalError, endpoint.connect("/nowhere/at/all", "server"));
}

TEST(poll_inside_a_handler_is_refused) {
  Pair pair;
  bool refused = false;
  const auto subscription = pair.server.subscribe<Count>([&](Count::Reader, const Origin&) {
    try {
      pair.server.poll();
    } catch (const lahja_capn::LocalError&) {
      refused = true;
    }
  });
  pair.connect();
  fill_number(pair.client, 1);
  pair.wait([&] { return refused; }, "the refusal");
}
