#include "consumer.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <stdexcept>

#include "conformance.capnp.h"
#include "vectors.h"

namespace conformance_program {

namespace {

using capnp::DynamicStruct;
using conformance::Answer;
using conformance::Ask;
using lahja_capn::FrameKind;
using lahja_capn::MessageView;
using lahja_capn::Origin;
using lahja_capn::Reply;

// Longer than any script takes.
constexpr std::chrono::minutes timeout{10};

std::uint64_t window(const Json& setup, const char* key, std::uint64_t otherwise) {
  if (!setup.contains(key)) return otherwise;
  return setup[key].is_string() ? lahja_capn::unlimited : setup[key].get<std::uint64_t>();
}

// A name, or the number where the schema has none for it.
Json code_json(const std::string& code) {
  const bool number = !code.empty() && std::all_of(code.begin(), code.end(), [](char c) { return c >= '0' && c <= '9'; });
  return number ? Json(std::stoi(code)) : Json(code);
}

Json shown(const std::string& type, MessageView& view) {
  try {
    return {{"type", type}, {"value", to_json(view.root<DynamicStruct>(schema_named(type)))}};
  } catch (const kj::Exception&) {
  } catch (const std::exception&) {
  }
  return {{"type", type}, {"unreadable", true}};
}

}  // namespace

Consumer::Consumer(const std::string& role, const Json& setup) : setup_(setup) {
  lahja_capn::Config config;
  config.name = setup.value("name", "consumer");
  config.instance = unhex(setup.value("instance", "c0c1c2c3c4c5c6c7c8c9cacbcccdcecf"));
  config.frame_limit = setup.value("frame_limit", 1048576u);
  config.event_credit = window(setup, "event_credit", 16777216);
  config.request_credit = window(setup, "request_credit", 4194304);
  config.keepalive = std::chrono::milliseconds(setup.value("keepalive_ms", 0));
  endpoint_ = std::make_unique<lahja_capn::Endpoint>(config);
  for (const char* type : {"Everything", "Count", "Blob", "Late", "Evolving", "Ask", "Answer"}) {
    endpoint_->declare(type_named(type));
  }
  endpoint_->on_error([](const std::string& what) { throw std::runtime_error(what); });
  endpoint_->on_up([this](const std::string& peer) { facts_.push_back({{"up", peer}}); });
  endpoint_->on_down([this](const std::string&, const lahja_capn::Ended& why) { ended(why); });
  endpoint_->on_refused([this](const lahja_capn::Ended& why) { ended(why); });
  if (setup.value("all", false)) {
    subscriptions_.emplace("*", endpoint_->subscribe_all([this](const lahja_capn::EventType& type, MessageView& view,
                                                                const Origin&) { show_event(type, view); }));
  }
  for (const auto& type : setup.value("subscribe", Json::array())) subscribe(type);
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) throw std::runtime_error("no socket pair");
  fd_ = fds[1];
  ::fcntl(fd_, F_SETFL, O_NONBLOCK);
  const bool connector = role == "connector";
  endpoint_->adopt(fds[0], connector ? lahja_capn::Role::connector : lahja_capn::Role::acceptor,
                   connector ? "vector" : "");
  settle();
}

Consumer::~Consumer() {
  subscriptions_.clear();
  unanswered_.clear();
  if (fd_ >= 0) ::close(fd_);
}

// --- bytes ---

void Consumer::receive(const std::string& bytes, std::size_t step) {
  if (step == 0) step = bytes.size();
  std::size_t at = 0;
  while (at < bytes.size()) {
    const std::size_t part = std::min(step, bytes.size() - at);
    const ssize_t written = ::send(fd_, bytes.data() + at, part, MSG_NOSIGNAL);
    if (written < 0 && errno != EAGAIN) break;  // it has closed: what still comes has no effect
    if (written > 0) at += static_cast<std::size_t>(written);
    settle();
  }
  settle();
}

void Consumer::end_of_stream() {
  ::shutdown(fd_, SHUT_WR);
  settle();
}

void Consumer::settle() {
  // A round may cause work for the next: two quiet ones are the end.
  for (int quiet = 0; quiet < 2;) {
    const std::size_t before = facts_.size();
    endpoint_->poll();
    quiet = collect() || facts_.size() != before ? 0 : quiet + 1;
  }
}

bool Consumer::collect() {
  bool any = false;
  while (!output_ended_) {
    auto space = reader_.space();
    const ssize_t count = ::read(fd_, space.begin(), space.size());
    if (count == 0) output_ended_ = true;
    if (count <= 0) break;
    any = true;
    reader_.received(static_cast<std::size_t>(count));
    while (auto frame = reader_.next(true)) sent(*frame);
  }
  return any;
}

void Consumer::sent(const lahja_capn::Frame& frame) {
  MessageView view(frame.message(), lahja_capn::content_options(frame.message().size()));
  if (frame.kind() != FrameKind::control) {
    if (state_ != "active") fail("content was sent while " + state_);
    static const char* const kinds[] = {"event", "request", "response"};
    Json json = shown(names_.at(frame.wire_id()), view);
    json["sent"] = kinds[static_cast<int>(frame.kind())];
    if (frame.kind() != FrameKind::event) json["correlation"] = std::to_string(frame.correlation());
    if (frame.kind() == FrameKind::request) request_numbers_.push_back(frame.correlation());
    frames_.push_back(std::move(json));
    return;
  }
  const Json control = to_json(view.root<DynamicStruct>(schema_named("Control")));
  const std::string variant = control.begin().key();
  Json json = control.begin().value().is_object() ? control.begin().value() : Json::object();
  advance(variant);
  for (const auto& row : json.value("types", Json::array())) {
    const std::string name = name_of(std::stoull(row["typeId"].get<std::string>()));
    if (row["wireId"] != 0 && !name.empty()) names_[row["wireId"]] = name;
  }
  if (variant == "subscriptions") last_sequence_ = std::stoull(json["sequence"].get<std::string>());
  json["sent"] = variant;
  frames_.push_back(std::move(json));
}

// Holds what is sent against the state table of docs/wire.md, section 4.
void Consumer::advance(const std::string& variant) {
  static const std::map<std::string, std::set<std::string>> allowed = {
      {"opening", {"hello", "goodbye"}},
      {"introduced", {"declare", "ping", "pong", "subscriptions", "goodbye"}},
      {"active",
       {"declare", "subscriptions", "subscriptionsAck", "credit", "failed", "ping", "pong", "dropped", "goodbye"}},
      {"ended", {}},
  };
  if (allowed.at(state_).count(variant) == 0) fail(variant + " was sent while " + state_);
  if (variant == "hello") state_ = "introduced";
  if (variant == "subscriptions") state_ = "active";
  if (variant == "goodbye") state_ = "ended";
}

// --- what the user sees ---

void Consumer::show_event(const lahja_capn::EventType& type, MessageView& view) {
  facts_.push_back({{"event", shown(name_of(type.type_id()), view)}});
}

void Consumer::ended(const lahja_capn::Ended& why) {
  const Json code = why.code ? code_json(to_string(*why.code)) : Json("");
  facts_.push_back({{"closed", {{"code", code}, {"by_peer", why.by_peer}}}});
}

void Consumer::subscribe(const std::string& name) {
  const lahja_capn::EventType& type = type_named(name);
  const bool shown_already = setup_.value("all", false);
  subscriptions_.emplace(name, endpoint_->subscribe(type, [this, &type, shown_already](MessageView& view, const Origin&) {
    if (!shown_already) show_event(type, view);
  }));
  if (name != "Ask") return;
  auto handler = [this](MessageView& view, const Origin&, Reply& reply) {
    Json fact = shown("Ask", view);
    fact["number"] = std::to_string(reply.correlation());
    facts_.push_back({{"request", fact}});
    const bool serve = setup_.value("serve", false) && fact.contains("value");
    const auto ask = view.root<Ask>();
    if (serve && ask.getMode() == conformance::Mode::ANSWER) {
      reply.send<Answer>([&](Answer::Builder answer) {
        answer.setNumber(ask.getNumber() * 2);
        answer.setText("twice " + std::to_string(ask.getNumber()));
      });
    } else if (serve && ask.getMode() == conformance::Mode::FAIL) {
      throw lahja_capn::RequestError("ValueError", "asked to fail");
    } else {
      unanswered_.push_back(std::move(reply));
    }
  };
  subscriptions_.emplace(name, endpoint_->serve_requests(type, std::move(handler)));
}

// --- what the user does ---

void Consumer::ask(const Json& step) {
  const std::string tag = step["tag"];
  capnp::MallocMessageBuilder message;
  from_json(step["value"], message.initRoot<DynamicStruct>(schema_named(step["type"])));
  const auto done = [this, tag](lahja_capn::RawOutcome&& raw) {
    tags_.erase(tag);
    lahja_capn::Outcome<Answer> outcome(std::move(raw));
    if (outcome.kind() == lahja_capn::OutcomeKind::answered) {
      const Json value = to_json(DynamicStruct::Reader(outcome.value()));
      facts_.push_back({{"answered", {{"tag", tag}, {"type", "Answer"}, {"value", value}}}});
    } else if (outcome.kind() == lahja_capn::OutcomeKind::lost) {
      facts_.push_back({{"lost", {{"tag", tag}}}});
    } else {
      const auto& failure = outcome.failures().at(0);
      facts_.push_back({{"failed",
                         {{"tag", tag},
                          {"code", failure.code ? code_json(to_string(*failure.code)) : Json("")},
                          {"typeName", failure.type_name},
                          {"text", failure.text}}}});
    }
  };
  tags_[tag] = endpoint_->request(type_named(step["type"]), lahja_capn::event_type<Answer>(), message, timeout, done);
}

void Consumer::act(const Json& step) {
  const std::string action = step["do"];
  if (action == "broadcast") {
    capnp::MallocMessageBuilder message;
    from_json(step["value"], message.initRoot<DynamicStruct>(schema_named(step["type"])));
    endpoint_->broadcast(type_named(step["type"]), message);
  } else if (action == "request") {
    ask(step);
  } else if (action == "forget") {
    endpoint_->forget_request(tags_.at(step["tag"]));
    tags_.erase(step["tag"].get<std::string>());
  } else if (action == "subscribe") {
    for (const auto& type : step["types"]) subscribe(type);
  } else if (action == "unsubscribe") {
    for (const auto& type : step["types"]) subscriptions_.erase(type.get<std::string>());
  } else if (action == "hold") {
    endpoint_->pause_events();
    endpoint_->pause_requests();
  } else if (action == "resume") {
    endpoint_->resume_events();
    endpoint_->resume_requests();
  } else if (action == "stop") {
    endpoint_->begin_close();
  } else {
    fail("there is no action " + action);
  }
  settle();
}

}  // namespace conformance_program
