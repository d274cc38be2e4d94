#include "lahja_capn/endpoint.h"

#include <random>

#include "core.h"

namespace lahja_capn {

namespace {

std::string random_instance() {
  std::random_device random;
  std::string instance;
  while (instance.size() < 16) instance += static_cast<char>(random());
  return instance;
}

}  // namespace

// --- Subscription, Reply ---

Subscription& Subscription::operator=(Subscription&& other) noexcept {
  if (this != &other) {
    cancel();
    core_ = std::move(other.core_);
    id_ = std::exchange(other.id_, 0);
  }
  return *this;
}

void Subscription::cancel() {
  const auto id = std::exchange(id_, 0);
  if (id == 0) return;
  if (const auto core = core_.lock()) core->cancel(id);
}

bool Subscription::acknowledged() const {
  const auto core = core_.lock();
  return id_ != 0 && core && core->acknowledged(id_);
}

Reply::~Reply() {
  if (correlation_ == 0) return;
  if (const auto core = core_.lock()) core->abandon(connection_, correlation_);
}

void Reply::send(const EventType& type, capnp::MessageBuilder& message) {
  const auto core = core_.lock();
  if (correlation_ == 0 || !core) return;
  core->answer(connection_, correlation_, type, message);
  correlation_ = 0;
}

void Reply::fail(const std::string& type_name, const std::string& text, FailedCode code) {
  const auto core = core_.lock();
  if (correlation_ == 0 || !core) return;
  core->fail(connection_, correlation_, code, type_name, text);
  correlation_ = 0;
}

// --- Endpoint ---

Endpoint::Endpoint(Config config) {
  if (!is_valid_name(config.name)) {
    throw LocalError("\"" + config.name + "\" is no name of an endpoint: wanted " + name_pattern);
  }
  if (config.frame_limit < min_frame_limit || config.frame_limit > max_frame_limit) {
    throw LocalError("frame_limit is " + std::to_string(config.frame_limit) + ": wanted " +
                     std::to_string(min_frame_limit) + " to " + std::to_string(max_frame_limit));
  }
  for (const auto window : {config.event_credit, config.request_credit}) {
    if (window > max_balance && window != unlimited) {
      throw LocalError("a credit window of " + std::to_string(window) + " bytes: wanted at most 2^63 - 1, or 2^64 - 1");
    }
  }
  if (config.instance.empty()) config.instance = random_instance();
  if (config.instance.size() != 16) {
    throw LocalError("instance has " + std::to_string(config.instance.size()) + " bytes: wanted 16, or none");
  }
  core_ = std::make_shared<Core>(std::move(config));
}

Endpoint::~Endpoint() = default;
Endpoint::Endpoint(Endpoint&&) noexcept = default;

void Endpoint::serve(const std::string& path) { core_->serve(path); }
void Endpoint::connect(const std::string& path, const std::string& name) { core_->connect(path, name); }
void Endpoint::adopt(int fd, Role role, const std::string& wanted_name) { core_->adopt(Fd(fd), role, wanted_name); }
void Endpoint::disconnect(const std::string& peer) { core_->disconnect(peer); }

std::vector<std::string> Endpoint::peers() const {
  std::vector<std::string> names;
  core_->each_peer([&](const Connection& connection) { names.push_back(connection.session.peer().name); });
  return names;
}

std::vector<PeerStatus> Endpoint::peer_status() const {
  std::vector<PeerStatus> all;
  core_->each_peer([&](const Connection& connection) {
    const Session& session = connection.session;
    all.push_back({session.peer().name, session.waiting_for_credit(), session.queued_bytes()});
  });
  return all;
}

void Endpoint::on_up(std::function<void(const std::string&)> handler) { core_->on_up = std::move(handler); }
void Endpoint::on_down(std::function<void(const std::string&, const Ended&)> handler) {
  core_->on_down = std::move(handler);
}
void Endpoint::on_refused(std::function<void(const Ended&)> handler) { core_->on_refused = std::move(handler); }
void Endpoint::on_peer_subscription(std::function<void(const std::string&, std::uint64_t, bool)> handler) {
  core_->on_peer_subscription = std::move(handler);
}
void Endpoint::on_error(std::function<void(const std::string&)> handler) { core_->on_error = std::move(handler); }

void Endpoint::run() { core_->run(); }
void Endpoint::poll(std::chrono::milliseconds timeout) { core_->poll(timeout); }
int Endpoint::fd() const { return core_->fd(); }
void Endpoint::stop() { core_->stop(); }
void Endpoint::post(Callback<void()> work) { core_->post(std::move(work)); }
void Endpoint::begin_close() { core_->begin_close(); }
void Endpoint::close() { core_->close(); }

bool Endpoint::run_until(const std::function<bool()>& done, std::chrono::milliseconds timeout) {
  const Instant end = Clock::now() + timeout;
  while (!done()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now());
    if (left.count() <= 0) return false;
    poll(left);
  }
  return true;
}

void Endpoint::declare(const EventType& type) { core_->declare(type); }

Subscription Endpoint::subscribe(const EventType& type, Callback<void(MessageView&, const Origin&)> handler) {
  return Subscription(core_, core_->subscribe(type, std::move(handler)));
}
Subscription Endpoint::subscribe_all(
    Callback<void(const EventType&, MessageView&, const Origin&)> handler) {
  return Subscription(core_, core_->subscribe_all(std::move(handler)));
}
Subscription Endpoint::serve_requests(const EventType& type,
                                      Callback<void(MessageView&, const Origin&, Reply&)> handler) {
  return Subscription(core_, core_->serve_requests(type, std::move(handler)));
}

bool Endpoint::anyone_wants(const EventType& type) { return core_->anyone_wants(type); }
std::size_t Endpoint::broadcast(const EventType& type, capnp::MessageBuilder& message) {
  return core_->broadcast(type, message);
}
bool Endpoint::try_broadcast(const EventType& type, capnp::MessageBuilder& message) {
  return core_->try_broadcast(type, message).has_value();
}
void Endpoint::pause_events() { core_->pause_events(); }
void Endpoint::resume_events() { core_->resume_events(); }
void Endpoint::pause_requests() { core_->pause_requests(); }
void Endpoint::resume_requests() { core_->resume_requests(); }

std::uint64_t Endpoint::request(const EventType& type, const EventType& answer, capnp::MessageBuilder& message,
                                std::chrono::milliseconds timeout, Callback<void(RawOutcome&&)> done,
                                const std::string& peer) {
  return core_->request(type, answer, message, timeout, std::move(done), peer);
}
void Endpoint::post_request(const EventType& type, const EventType& answer,
                            std::unique_ptr<capnp::MallocMessageBuilder> message, std::chrono::milliseconds timeout,
                            Callback<void(RawOutcome&&)> done, Callback<void(std::exception_ptr)> refused) {
  // The core runs this itself: it is there, and owns it.
  core_->post([core = core_.get(), &type, &answer, message = std::move(message), timeout, done = std::move(done),
               refused = std::move(refused)]() mutable {
    try {
      core->request(type, answer, *message, timeout, std::move(done), "");
    } catch (...) {
      refused(std::current_exception());
    }
  });
}
void Endpoint::forget_request(std::uint64_t id) { core_->forget_request(id); }
bool Endpoint::all_acknowledged() const { return core_->all_acknowledged(); }
Counters Endpoint::counters() const { return core_->counters(); }

}  // namespace lahja_capn
