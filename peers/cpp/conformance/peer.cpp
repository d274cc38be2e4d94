#include "peer.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iostream>
#include <stdexcept>

#include "conformance.capnp.h"

namespace conformance_program {

namespace {

using capnp::DynamicStruct;
using conformance::Answer;
using conformance::Ask;
using conformance::Blob;
using conformance::Count;
using lahja_capn::MessageView;
using lahja_capn::Origin;
using lahja_capn::OutcomeKind;
using lahja_capn::Reply;

// A job that could go on for long lets the stream have its turn after so many events.
constexpr int events_at_once = 500;

std::unique_ptr<capnp::MallocMessageBuilder> message_of(const std::string& type, const Json& value) {
  auto message = std::make_unique<capnp::MallocMessageBuilder>();
  from_json(value, message->initRoot<DynamicStruct>(schema_named(type)));
  return message;
}

}  // namespace

Peer::Peer(const PeerOptions& options) : options_(options), endpoint_(options.config) {
  for (const char* type : {"Everything", "Count", "Blob", "Evolving", "Ask", "Answer"}) {
    endpoint_.declare(type_named(type));
  }
  watch();
}

void Peer::say(const Json& line) { std::cout << line.dump() << std::endl; }

void Peer::watch() {
  endpoint_.on_up([this](const std::string& peer) {
    ++ups_;
    remote_ = peer;
    say({{"is", "up"}, {"peer", peer}});
  });
  endpoint_.on_down([this](const std::string& peer, const lahja_capn::Ended& why) {
    const auto peers = endpoint_.peers();
    if (peer == remote_ && std::find(peers.begin(), peers.end(), peer) == peers.end()) remote_.clear();
    say({{"is", "down"}, {"peer", peer}, {"code", why.code ? to_string(*why.code) : ""}, {"by_peer", why.by_peer}});
    std::cerr << "down: " << why.text << std::endl;
  });
  endpoint_.on_refused([this](const lahja_capn::Ended& why) {
    say({{"is", "refused"}, {"code", why.code ? to_string(*why.code) : ""}});
    std::cerr << "refused: " << why.text << std::endl;
  });
  endpoint_.on_peer_subscription([this](const std::string& peer, std::uint64_t type_id, bool on) {
    if (peer != remote_) return;
    say({{"is", on ? "peer_subscribed" : "peer_unsubscribed"}, {"type", name_of(type_id)}});
  });
}

int Peer::run() {
  if (!options_.serve.empty()) {
    endpoint_.serve(options_.serve);
    say({{"is", "listening"}});
  } else {
    endpoint_.connect(options_.connect, options_.expect);
  }
  while (!stop_ && !(input_ended_ && commands_.empty())) {
    // Both are watched by one poll(2): an endpoint lives in anybody's loop.
    pollfd fds[] = {{endpoint_.fd(), POLLIN, 0}, {input_ended_ ? -1 : STDIN_FILENO, POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0 && errno != EINTR) throw std::runtime_error("poll failed");
    if (fds[1].revents != 0) input_ended_ = !read_input();
    endpoint_.poll();
    obey();
  }
  endpoint_.close();
  if (stop_) say({{"is", "stopped"}});
  return 0;
}

bool Peer::read_input() {
  char chunk[65536];
  const ssize_t count = ::read(STDIN_FILENO, chunk, sizeof(chunk));
  if (count < 0) return errno == EINTR || errno == EAGAIN;
  input_.append(chunk, static_cast<std::size_t>(count));
  std::size_t start = 0;
  for (std::size_t end; (end = input_.find('\n', start)) != std::string::npos; start = end + 1) {
    if (end > start) commands_.push_back(input_.substr(start, end - start));
  }
  input_.erase(0, start);
  return count > 0;
}

void Peer::obey() {
  for (std::size_t i = 0; i < jobs_.size();) {
    if (jobs_[i]()) {
      jobs_.erase(jobs_.begin() + static_cast<std::ptrdiff_t>(i));
    } else {
      ++i;
    }
  }
  if (waiting_ && waiting_()) waiting_ = nullptr;
  while (!waiting_ && !commands_.empty() && !stop_) {
    const std::string line = std::move(commands_.front());
    commands_.pop_front();
    std::string problem;
    try {
      start(Json::parse(line));
    } catch (const kj::Exception& error) {
      problem = error.getDescription().cStr();
    } catch (const std::exception& error) {
      problem = error.what();
    }
    if (!problem.empty()) say({{"is", "error"}, {"text", problem}});
    // Done already, perhaps.
    if (waiting_ && waiting_()) waiting_ = nullptr;
  }
}

void Peer::start(const Json& command) {
  const std::string what = command.at("do");
  if (what == "subscribe") {
    for (const auto& type : command.at("types")) subscribe(type);
    waiting_ = acknowledged("subscribed");
  } else if (what == "unsubscribe") {
    for (const auto& type : command.at("types")) {
      subscriptions_.erase(type.get<std::string>());
      if (type == "Ask") serving_.cancel();
    }
    waiting_ = acknowledged("unsubscribed");
  } else if (what == "broadcast") {
    const std::string type = command.at("type");
    waiting_ = broadcast(type, message_of(type, command.at("value")));
  } else if (what == "blob") {
    const auto id = command.at("id").get<std::uint32_t>();
    const auto size = command.at("size").get<std::uint32_t>();
    waiting_ = broadcast("Blob", lahja_capn::build<Blob>([&](Blob::Builder blob) {
                           blob.setId(id);
                           auto data = blob.initData(size);
                           for (std::uint32_t k = 0; k < size; ++k) data[k] = static_cast<kj::byte>(k * 31 + id);
                         }));
  } else if (what == "count") {
    count(command);
  } else if (what == "await_count") {
    jobs_.push_back([this, tag = command.at("tag"), wanted = command.at("count").get<std::uint64_t>()] {
      if (counted_ < wanted) return false;
      say({{"is", "count_reached"}, {"tag", tag}, {"count", wanted}, {"in_order", in_order_}});
      return true;
    });
  } else if (what == "hold") {
    endpoint_.pause_events();
    say({{"is", "holding"}});
  } else if (what == "resume") {
    endpoint_.resume_events();
    say({{"is", "resumed"}});
  } else if (what == "serve_requests") {
    serve_requests();
    waiting_ = acknowledged("serving");
  } else if (what == "request") {
    request(command);
  } else if (what == "status") {
    say(status());
  } else if (what == "stop") {
    stop_ = true;
  } else {
    throw std::runtime_error("there is no command " + what);
  }
  if (!jobs_.empty()) endpoint_.post([] {});
}

// --- subscriptions ---

void Peer::subscribe(const std::string& type) {
  if (subscriptions_.count(type) > 0) return;
  if (type == "Count") {
    subscriptions_[type] = endpoint_.subscribe<Count>(
        [this](Count::Reader event, const Origin&) { take_count(event.getNumber()); });
  } else if (type == "Blob") {
    subscriptions_[type] = endpoint_.subscribe<Blob>([this](Blob::Reader event, const Origin&) {
      const auto data = event.getData();
      std::uint32_t sum = 0;
      for (const kj::byte byte : data) sum += byte;
      say({{"is", "received_blob"}, {"id", event.getId()}, {"size", data.size()}, {"sum", sum}});
    });
  } else {
    subscriptions_[type] = endpoint_.subscribe(type_named(type), [this, type](MessageView& view, const Origin&) {
      say({{"is", "received"}, {"type", type}, {"value", to_json(view.root<DynamicStruct>(schema_named(type)))}});
    });
  }
}

void Peer::take_count(std::uint64_t number) {
  if (counted_ > 0 && number != last_count_ + 1) in_order_ = false;
  last_count_ = number;
  ++counted_;
}

Peer::Job Peer::acknowledged(const char* answer) {
  return [this, answer] {
    if (!endpoint_.all_acknowledged()) return false;
    say({{"is", answer}});
    return true;
  };
}

// --- events ---

Peer::Job Peer::broadcast(const std::string& type, std::unique_ptr<capnp::MallocMessageBuilder> message) {
  return [this, type, message = std::shared_ptr<capnp::MallocMessageBuilder>(std::move(message))] {
    if (!endpoint_.try_broadcast(type_named(type), *message)) return false;
    say({{"is", "sent"}});
    return true;
  };
}

void Peer::count(const Json& command) {
  jobs_.push_back([this, tag = command.at("tag"), next = command.at("from").get<std::uint64_t>(),
                   end = command.at("to").get<std::uint64_t>(), up = ups_]() mutable {
    // To another peer, or to none, the rest would be a surprise, or nothing.
    const auto here = [&] { return is_up() && ups_ == up; };
    for (int i = 0; next < end && here(); ++i) {
      if (i == events_at_once) {
        endpoint_.post([] {});
        return false;
      }
      if (!endpoint_.try_broadcast<Count>([&](Count::Builder event) { event.setNumber(next); })) return false;
      ++next;
    }
    say({{"is", "counted"}, {"tag", tag}});
    return true;
  });
}

Json Peer::status() const {
  const auto counters = endpoint_.counters();
  bool waiting = false;
  for (const auto& peer : endpoint_.peer_status()) waiting = waiting || (peer.name == remote_ && peer.waiting_for_credit);
  return {{"is", "status"},
          {"sent_events", counters.events_sent},
          {"received_events", counters.events_received},
          {"skipped", counters.events_skipped},
          {"waiting_for_credit", waiting}};
}

// --- requests ---

void Peer::serve_requests() {
  serving_.cancel();
  endpoint_.declare<Answer>();
  serving_ = endpoint_.serve_requests<Ask, Answer>(
      [this](Ask::Reader ask, const Origin&, Reply reply) {
        const std::uint64_t number = ask.getNumber();
        switch (ask.getMode()) {
          case conformance::Mode::ANSWER:
            reply.send<Answer>([&](Answer::Builder answer) {
              answer.setNumber(number * 2);
              answer.setText("twice " + std::to_string(number));
            });
            return;
          case conformance::Mode::FAIL:
            throw lahja_capn::RequestError("ValueError", "asked to fail");
          case conformance::Mode::SILENCE:
            silent_.push_back(std::move(reply));
            return;
        }
      });
}

void Peer::request(const Json& command) {
  const Json tag = command.at("tag");
  const std::string mode = command.at("mode");
  const std::uint64_t number = std::stoull(command.at("number").get<std::string>());
  const auto done = [this, tag](lahja_capn::Outcome<Answer>&& outcome) {
    switch (outcome.kind()) {
      case OutcomeKind::answered: {
        const auto answer = outcome.value();
        say({{"is", "answered"},
             {"tag", tag},
             {"number", std::to_string(answer.getNumber())},
             {"text", answer.getText().cStr()}});
        return;
      }
      case OutcomeKind::failed: {
        const auto& failure = outcome.failures().at(0);
        say({{"is", "failed"},
             {"tag", tag},
             {"code", failure.code ? to_string(*failure.code) : ""},
             {"type_name", failure.type_name},
             {"text", failure.text}});
        return;
      }
      case OutcomeKind::timed_out:
        say({{"is", "timed_out"}, {"tag", tag}});
        return;
      case OutcomeKind::lost:
        say({{"is", "lost"}, {"tag", tag}});
        return;
    }
  };
  const auto fill = [&](Ask::Builder ask) {
    capnp::DynamicStruct::Builder(ask).set("mode", capnp::DynamicValue::Reader(mode.c_str()));
    ask.setNumber(number);
  };
  const auto timeout = std::chrono::milliseconds(command.at("timeout_ms").get<std::int64_t>());
  try {
    endpoint_.request<Ask, Answer>(fill, timeout, done, remote_);
  } catch (const lahja_capn::LocalError& error) {
    say({{"is", "failed"}, {"tag", tag}, {"code", "noHandler"}, {"type_name", ""}, {"text", error.what()}});
  }
}

}  // namespace conformance_program
