// Two sessions and no socket: time is what the test says it is.
#include <algorithm>
#include <deque>
#include <string>

#include "conformance.capnp.h"
#include "control.h"
#include "harness.h"
#include "lahja_capn/messages.h"
#include "lahja_capn/session.h"

namespace {

using conformance::Ask;
using conformance::Blob;
using conformance::Count;
using lahja_capn::Catalog;
using lahja_capn::Ended;
using lahja_capn::event_type;
using lahja_capn::EventArrived;
using lahja_capn::GoodbyeCode;
using lahja_capn::HelloArrived;
using lahja_capn::Instant;
using lahja_capn::OutFrame;
using lahja_capn::RequestArrived;
using lahja_capn::Role;
using lahja_capn::Session;
using lahja_capn::SessionEvent;
using lahja_capn::Settings;
using lahja_capn::SharedFrame;
using std::chrono::milliseconds;
using std::chrono::seconds;

Settings named(const std::string& name) {
  Settings settings;
  settings.name = name;
  settings.instance = std::string(16, name[0]);
  return settings;
}

struct Side {
  Side(Role role, const Settings& wanted, Instant now, const std::string& peer = "")
      : settings(wanted), session(role, settings, catalog, now, peer) {}

  // All events so far, hello accepted.
  void look(Instant now) {
    while (auto event = session.next(now)) {
      if (std::holds_alternative<HelloArrived>(*event)) session.accept();
      if (auto* why = std::get_if<Ended>(&*event)) ended = *why;
      events.push_back(std::move(*event));
    }
  }
  template <typename Kind>
  std::size_t count() const {
    return static_cast<std::size_t>(std::count_if(
        events.begin(), events.end(), [](const auto& event) { return std::holds_alternative<Kind>(event); }));
  }

  Settings settings;
  Catalog catalog;
  Session session;
  std::vector<SessionEvent> events;
  std::optional<Ended> ended;
};

std::string output(Session& session, Instant now, std::size_t most = ~std::size_t{0}) {
  std::string bytes;
  kj::ArrayPtr<const kj::byte> pieces[16];
  while (const std::size_t count = session.collect(kj::arrayPtr(pieces, 16))) {
    std::size_t taken = 0;
    for (std::size_t i = 0; i < count && bytes.size() < most; ++i) {
      const std::size_t part = std::min(pieces[i].size(), most - bytes.size());
      bytes.append(reinterpret_cast<const char*>(pieces[i].begin()), part);
      taken += part;
    }
    if (taken == 0) break;
    session.sent(taken, now);
  }
  return bytes;
}

void input(Side& to, const std::string& bytes, Instant now) {
  for (std::size_t at = 0; at < bytes.size();) {
    auto space = to.session.receive_space();
    const std::size_t part = std::min(space.size(), bytes.size() - at);
    std::copy_n(bytes.data() + at, part, space.begin());
    to.session.received(part, now);
    to.look(now);
    at += part;
  }
}

// Carries bytes both ways until there are none.
void settle(Side& a, Side& b, Instant now) {
  while (true) {
    a.look(now);
    b.look(now);
    const std::string there = output(a.session, now);
    const std::string back = output(b.session, now);
    if (there.empty() && back.empty()) return;
    input(b, there, now);
    input(a, back, now);
  }
}

struct Pair {
  explicit Pair(const Settings& publisher = named("publisher"), const Settings& listener = named("listener"))
      : a(Role::connector, publisher, now, listener.name), b(Role::acceptor, listener, now) {
    for (auto* side : {&a, &b}) {
      side->catalog.declare(event_type<Count>());
      side->catalog.declare(event_type<Blob>());
      side->catalog.declare(event_type<Ask>());
    }
    b.catalog.events_wanted = {event_type<Count>().type_id(), event_type<Blob>().type_id()};
  }
  void settle() { ::settle(a, b, now); }
  void pass(milliseconds time) {
    now += time;
    a.session.handle_time(now);
    b.session.handle_time(now);
    a.look(now);
    b.look(now);
  }

  Instant now{seconds(1000)};
  Side a;
  Side b;
};

SharedFrame count_frame(Side& side, std::uint64_t number) {
  const auto message = lahja_capn::build<Count>([=](Count::Builder count) { count.setNumber(number); });
  return std::make_shared<const OutFrame>(lahja_capn::FrameKind::event,
                                          side.catalog.wire_id(event_type<Count>().type_id()), *message);
}

Session::Queued send_count(Side& side, std::uint64_t number) {
  return side.session.send_event(event_type<Count>(), count_frame(side, number));
}

constexpr std::size_t count_bytes = 40;

}  // namespace

TEST(both_sides_come_up) {
  Pair pair;
  pair.settle();
  CHECK(pair.a.session.state() == Session::State::up);
  CHECK(pair.b.session.state() == Session::State::up);
  CHECK(pair.a.session.wants(event_type<Count>()));
  CHECK(!pair.b.session.wants(event_type<Count>()));
  CHECK(pair.b.session.all_applied());
}

TEST(a_handshake_that_takes_too_long_ends) {
  Pair pair;
  pair.pass(milliseconds(9999));
  CHECK(!pair.b.ended);
  pair.pass(milliseconds(1));
  CHECK(pair.b.ended.has_value());
  CHECK(pair.b.ended->code == GoodbyeCode::handshake_timeout);
}

TEST(events_stop_at_the_window_and_go_on_when_credit_comes_back) {
  auto listener = named("listener");
  listener.event_credit = 100;
  Pair pair(named("publisher"), listener);
  pair.settle();
  for (std::uint64_t i = 0; i < 5; ++i) CHECK(send_count(pair.a, i) == Session::Queued::queued);
  pair.settle();
  // 100, 60, 20, -20: the third is the one by which it may go below zero.
  CHECK_EQUAL(pair.b.count<EventArrived>(), std::size_t{3});
  CHECK(pair.a.session.waiting_for_credit());
  // Less than half of the window, but the sender waits.
  pair.b.session.event_taken(count_bytes);
  pair.settle();
  CHECK_EQUAL(pair.b.count<EventArrived>(), std::size_t{4});
  pair.b.session.event_taken(3 * count_bytes);
  pair.settle();
  CHECK_EQUAL(pair.b.count<EventArrived>(), std::size_t{5});
  CHECK(!pair.a.session.waiting_for_credit());
}

TEST(the_credit_of_requests_comes_back_too_while_the_sender_waits) {
  auto listener = named("listener");
  listener.request_credit = 200;
  Pair pair(named("publisher"), listener);
  pair.b.catalog.requests_served = {event_type<Ask>().type_id()};
  pair.settle();
  const auto message = lahja_capn::build<Ask>([](Ask::Builder) {});
  const auto frame = std::make_shared<const OutFrame>(
      lahja_capn::FrameKind::request, pair.a.catalog.wire_id(event_type<Ask>().type_id()), *message);
  for (std::size_t sent = 0; sent < 200; sent += frame->size()) CHECK(pair.a.session.send_request(frame).has_value());
  pair.settle();
  pair.b.session.request_taken(8);
  CHECK(!output(pair.b.session, pair.now).empty());
}

TEST(credit_comes_back_in_halves_of_the_window_while_there_is_some) {
  auto listener = named("listener");
  listener.event_credit = 400;
  Pair pair(named("publisher"), listener);
  pair.settle();
  for (std::uint64_t i = 0; i < 5; ++i) send_count(pair.a, i);
  pair.settle();
  pair.b.session.event_taken(4 * count_bytes);
  CHECK(output(pair.b.session, pair.now).empty());
  pair.b.session.event_taken(count_bytes);
  CHECK(!output(pair.b.session, pair.now).empty());
}

TEST(a_queue_that_is_full_says_so_and_a_peer_that_takes_nothing_is_given_up) {
  auto publisher = named("publisher");
  publisher.queue_bytes = 100;
  auto listener = named("listener");
  listener.event_credit = 0;
  Pair pair(publisher, listener);
  pair.settle();
  for (std::uint64_t i = 0; i < 3; ++i) CHECK(send_count(pair.a, i) == Session::Queued::queued);
  CHECK(send_count(pair.a, 3) == Session::Queued::full);
  pair.pass(seconds(30));
  // Nobody waits for room yet.
  CHECK(!pair.a.ended);
  pair.a.session.room_wanted(pair.now);
  pair.pass(milliseconds(4999));
  CHECK(!pair.a.ended);
  pair.pass(milliseconds(1));
  CHECK(pair.a.ended.has_value());
  CHECK(pair.a.ended->code == GoodbyeCode::too_slow);
}

TEST(a_peer_that_takes_some_is_not_given_up) {
  auto publisher = named("publisher");
  publisher.queue_bytes = 100;
  publisher.keepalive = milliseconds(0);
  auto listener = named("listener");
  listener.event_credit = 40;
  listener.keepalive = milliseconds(0);
  Pair pair(publisher, listener);
  pair.settle();
  for (std::uint64_t i = 0; i < 8; ++i) {
    while (send_count(pair.a, i) == Session::Queued::queued) {
    }
    pair.a.session.room_wanted(pair.now);
    pair.settle();
    pair.pass(milliseconds(4000));
    CHECK(!pair.a.ended);
    pair.b.session.event_taken(count_bytes);
    pair.settle();
  }
}

TEST(a_silent_peer_is_pinged_and_then_given_up) {
  auto publisher = named("publisher");
  publisher.keepalive = milliseconds(100);
  Pair pair(publisher);
  pair.settle();
  pair.pass(milliseconds(99));
  CHECK(output(pair.a.session, pair.now).empty());
  pair.pass(milliseconds(1));
  const std::string ping = output(pair.a.session, pair.now);
  CHECK_EQUAL(ping.size(), std::size_t{48});
  pair.pass(milliseconds(100));
  CHECK_EQUAL(output(pair.a.session, pair.now).size(), std::size_t{48});
  pair.pass(milliseconds(99));
  CHECK(!pair.a.ended);
  pair.pass(milliseconds(1));
  CHECK(pair.a.ended.has_value());
  CHECK(pair.a.ended->code == GoodbyeCode::keepalive_timeout);
}

TEST(a_ping_is_answered_and_the_answer_is_life) {
  auto publisher = named("publisher");
  publisher.keepalive = milliseconds(100);
  Pair pair(publisher);
  pair.settle();
  for (int i = 0; i < 10; ++i) {
    pair.pass(milliseconds(100));
    pair.settle();
    CHECK(!pair.a.ended);
  }
}

TEST(a_process_that_was_stopped_asks_before_it_judges) {
  auto publisher = named("publisher");
  publisher.keepalive = milliseconds(100);
  Pair pair(publisher);
  pair.settle();
  pair.pass(seconds(3600));
  CHECK(!pair.a.ended);
  pair.settle();
  pair.pass(milliseconds(99));
  CHECK(!pair.a.ended);
}

TEST(many_pings_get_few_pongs_while_nothing_can_be_written) {
  Pair pair;
  pair.settle();
  pair.b.session.ping();
  const std::string ping = output(pair.b.session, pair.now);
  for (int i = 0; i < 1000; ++i) input(pair.a, ping, pair.now);
  CHECK_EQUAL(output(pair.a.session, pair.now).size(), ping.size());
}

TEST(a_goodbye_follows_a_frame_that_was_begun_and_nothing_else) {
  Pair pair;
  pair.settle();
  const auto message = lahja_capn::build<Blob>([](Blob::Builder blob) { blob.initData(100000); });
  const auto frame = std::make_shared<const OutFrame>(lahja_capn::FrameKind::event,
                                                      pair.a.catalog.wire_id(event_type<Blob>().type_id()), *message);
  pair.a.session.send_event(event_type<Blob>(), frame);
  std::string bytes = output(pair.a.session, pair.now, 1000);
  send_count(pair.a, 1);
  pair.a.session.goodbye(GoodbyeCode::shutdown, "", pair.now);
  bytes += output(pair.a.session, pair.now);
  CHECK(pair.a.session.output_ended());
  input(pair.b, bytes, pair.now);
  CHECK_EQUAL(pair.b.count<EventArrived>(), std::size_t{1});
  CHECK(pair.b.ended.has_value());
  CHECK(pair.b.ended->by_peer);
  CHECK(output(pair.b.session, pair.now).empty());
}

TEST(who_said_goodbye_closes_after_two_seconds_at_most) {
  Pair pair;
  pair.settle();
  pair.a.session.goodbye(GoodbyeCode::shutdown, "", pair.now);
  pair.pass(milliseconds(1999));
  CHECK(pair.a.session.state() == Session::State::closing);
  pair.pass(milliseconds(1));
  CHECK(pair.a.session.state() == Session::State::closed);
}

TEST(events_that_are_not_wanted_any_more_leave_the_queue_before_the_acknowledgement) {
  auto listener = named("listener");
  listener.event_credit = 40;
  Pair pair(named("publisher"), listener);
  pair.settle();
  for (std::uint64_t i = 0; i < 3; ++i) send_count(pair.a, i);
  pair.settle();
  CHECK(pair.a.session.waiting_for_credit());
  pair.b.catalog.events_wanted.erase(event_type<Count>().type_id());
  pair.b.session.update_subscriptions(pair.now);
  pair.settle();
  CHECK(pair.b.session.all_applied());
  CHECK_EQUAL(pair.a.session.queued_bytes(), std::size_t{0});
  CHECK_EQUAL(pair.b.count<EventArrived>(), std::size_t{1});
}

Settings without_keepalive(const std::string& name) {
  auto settings = named(name);
  settings.keepalive = milliseconds(0);
  return settings;
}

TEST(a_peer_that_does_not_acknowledge_subscriptions_is_given_up_after_30_seconds) {
  Pair pair(without_keepalive("publisher"), without_keepalive("listener"));
  pair.settle();
  pair.pass(seconds(100));
  CHECK(!pair.b.ended);
  pair.b.catalog.events_wanted.erase(event_type<Count>().type_id());
  pair.b.session.update_subscriptions(pair.now);
  pair.pass(seconds(20));
  // The first of the two is the one that is late.
  pair.b.catalog.events_wanted.erase(event_type<Blob>().type_id());
  pair.b.session.update_subscriptions(pair.now);
  pair.pass(milliseconds(9999));
  CHECK(!pair.b.ended);
  pair.pass(milliseconds(1));
  CHECK(pair.b.ended.has_value());
  CHECK(pair.b.ended->code == GoodbyeCode::protocol_error);
  CHECK(pair.b.ended->text.find("not acknowledged") != std::string::npos);
}

TEST(what_is_not_acknowledged_yet_has_its_time_from_the_last_acknowledgement_on) {
  Pair pair(without_keepalive("publisher"), without_keepalive("listener"));
  pair.settle();
  pair.b.catalog.events_wanted.erase(event_type<Count>().type_id());
  pair.b.session.update_subscriptions(pair.now);
  pair.pass(seconds(29));
  const std::string first = output(pair.b.session, pair.now);
  pair.b.catalog.events_wanted.erase(event_type<Blob>().type_id());
  pair.b.session.update_subscriptions(pair.now);
  const std::string second = output(pair.b.session, pair.now);
  input(pair.a, first, pair.now);
  input(pair.b, output(pair.a.session, pair.now), pair.now);
  pair.pass(milliseconds(29999));
  CHECK(!pair.b.ended);
  CHECK(!pair.b.session.all_applied());
  input(pair.a, second, pair.now);
  pair.settle();
  CHECK(pair.b.session.all_applied());
  CHECK(pair.b.session.deadline() == Instant::max());
}

TEST(the_first_subscriptions_must_be_acknowledged_too) {
  Pair pair(without_keepalive("publisher"), without_keepalive("listener"));
  pair.a.look(pair.now);
  input(pair.b, output(pair.a.session, pair.now), pair.now);
  input(pair.a, output(pair.b.session, pair.now), pair.now);
  // The publisher's last words: its first subscriptions. The acknowledgement stands behind them.
  const std::string last = output(pair.a.session, pair.now);
  constexpr std::size_t ack_bytes = 48;
  input(pair.b, last.substr(0, last.size() - ack_bytes), pair.now);
  CHECK(pair.b.session.state() == Session::State::up);
  CHECK(!pair.b.session.all_applied());
  pair.pass(seconds(30));
  CHECK(pair.b.ended.has_value());
  CHECK(pair.b.ended->code == GoodbyeCode::protocol_error);
}

TEST(more_open_requests_than_the_limit_are_refused) {
  auto listener = named("listener");
  listener.open_requests = 2;
  Pair pair(named("publisher"), listener);
  pair.b.catalog.requests_served = {event_type<Ask>().type_id()};
  pair.settle();
  const auto message = lahja_capn::build<Ask>([](Ask::Builder) {});
  const auto frame = std::make_shared<const OutFrame>(lahja_capn::FrameKind::request,
                                                      pair.a.catalog.wire_id(event_type<Ask>().type_id()), *message);
  for (int i = 0; i < 3; ++i) CHECK(pair.a.session.send_request(frame).has_value());
  pair.settle();
  CHECK_EQUAL(pair.b.count<RequestArrived>(), std::size_t{2});
  CHECK_EQUAL(pair.a.count<lahja_capn::FailedArrived>(), std::size_t{1});
  for (const auto& event : pair.a.events) {
    if (const auto* failed = std::get_if<lahja_capn::FailedArrived>(&event)) {
      CHECK_EQUAL(failed->correlation, std::uint64_t{3});
      CHECK(failed->code == lahja_capn::FailedCode::overloaded);
    }
  }
}

TEST(content_that_came_before_our_subscriptions_were_sent_is_refused) {
  const auto text = [](const SharedFrame& frame) {
    return std::string(reinterpret_cast<const char*>(frame->bytes().begin()), frame->size());
  };
  for (const bool early : {true, false}) {
    Pair pair;
    // By hand: a session of ours would not send content so early.
    const lahja_capn::control::Declare rows{{{1, event_type<Count>().row}}};
    const lahja_capn::control::Subscriptions subscriptions{1, {}, {}, false, false};
    const std::string introduction = output(pair.a.session, pair.now) + text(lahja_capn::control::encode(rows)) +
                                     text(lahja_capn::control::encode(subscriptions));
    const std::string event = text(count_frame(pair.a, 1));
    if (early) {
      input(pair.b, introduction + event, pair.now);
    } else {
      input(pair.b, introduction, pair.now);
      output(pair.b.session, pair.now);
      input(pair.b, event, pair.now);
    }
    CHECK_EQUAL(pair.b.count<EventArrived>(), std::size_t{early ? 0u : 1u});
    CHECK_EQUAL(pair.b.ended.has_value(), early);
    CHECK(!early || pair.b.ended->code == GoodbyeCode::protocol_error);
  }
}

TEST(events_of_a_type_that_a_new_row_disables_leave_the_queue) {
  auto listener = named("listener");
  listener.event_credit = 0;
  Pair pair(named("publisher"), listener);
  lahja_capn::EventType outer{{1000, lahja_capn::RowKind::structure, "Outer", {}}, {}};
  pair.b.catalog.declare(outer);
  pair.b.catalog.events_wanted.insert(outer.type_id());
  outer.reachable.push_back({1001, lahja_capn::RowKind::structure, "Part", {5}});
  pair.a.catalog.declare(outer);
  pair.settle();
  CHECK(pair.a.session.send_event(outer, count_frame(pair.a, 1)) == Session::Queued::queued);
  CHECK(send_count(pair.a, 2) == Session::Queued::queued);
  pair.b.catalog.declare({{1001, lahja_capn::RowKind::structure, "Part", {6}}, {}});
  pair.b.catalog.events_wanted.insert(1001);
  pair.b.session.update_subscriptions(pair.now);
  pair.settle();
  CHECK(!pair.a.session.wants(outer));
  CHECK_EQUAL(pair.a.session.queued_bytes(), count_bytes);
}

TEST(a_table_larger_than_one_control_frame_goes_in_several) {
  Pair pair;
  constexpr std::uint64_t types = 3000;
  for (std::uint64_t i = 1; i <= types; ++i) {
    pair.a.catalog.declare(lahja_capn::opaque_type(i, std::string(1000, 'x')));
    pair.b.catalog.declare(lahja_capn::opaque_type(i, "y"));
    pair.b.catalog.events_wanted.insert(i);
  }
  pair.settle();
  CHECK(pair.b.session.state() == Session::State::up);
  CHECK(pair.a.session.wants(lahja_capn::opaque_type(types, "")));
}
