// The endpoint's IO: sockets, timers, and one round of work.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core.h"

namespace lahja_capn {

namespace {

// Numbers that are no connection's.
constexpr std::uint64_t wake_id = 0;
constexpr std::uint64_t timer_id = ~std::uint64_t{0};
constexpr std::uint64_t listener_id = timer_id - 1;
// How much is read from one connection before the others get their turn.
constexpr std::size_t read_at_once = 1u << 20;

std::string reason() { return std::strerror(errno); }

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    throw IoError("the socket path \"" + path + "\" has " + std::to_string(path.size()) + " bytes: wanted 1 to " +
                  std::to_string(sizeof(address.sun_path) - 1));
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

Fd unix_socket() {
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) throw IoError("no Unix socket could be made: " + reason());
  return fd;
}

int connect_to(const Fd& fd, const sockaddr_un& address) {
  return ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
}

}  // namespace

Fd& Fd::operator=(Fd&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

void Fd::reset() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Core::Core(Config config) : config_(std::move(config)) {
  epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  wake_ = Fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  timer_ = Fd(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  if (!epoll_ || !wake_ || !timer_) throw IoError("an endpoint could not be made: " + reason());
  for (const auto& [fd, id] : {std::pair{wake_.get(), wake_id}, std::pair{timer_.get(), timer_id}}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = id;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
      throw IoError("an endpoint could not be made: " + reason());
    }
  }
}

Core::~Core() {
  const Instant now = Clock::now();
  for (const auto& connection : connections_) {
    connection->session.goodbye(GoodbyeCode::shutdown, "the endpoint is gone", now);
    if (connection->fd) write(*connection);
  }
  if (listener_) ::unlink(listener_path_.c_str());
}

// --- connections ---

void Core::serve(const std::string& path) {
  if (listener_) throw LocalError("this endpoint serves " + listener_path_ + " already");
  const sockaddr_un address = address_of(path);
  Fd fd = unix_socket();
  const auto bind = [&] { return ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)); };
  if (bind() != 0) {
    struct stat found {};
    const bool taken = errno == EADDRINUSE && ::lstat(path.c_str(), &found) == 0 && S_ISSOCK(found.st_mode);
    if (!taken) throw IoError("cannot serve " + path + ": " + reason());
    // A process that was killed leaves its socket behind; a living one answers.
    if (connect_to(unix_socket(), address) == 0 || errno != ECONNREFUSED) {
      throw IoError("cannot serve " + path + ": a living endpoint serves there");
    }
    ::unlink(path.c_str());
    if (bind() != 0) throw IoError("cannot serve " + path + ": " + reason());
  }
  // Nobody can connect before listen().
  if (::chmod(path.c_str(), 0600) != 0 || ::listen(fd.get(), 128) != 0) {
    const std::string why = reason();
    ::unlink(path.c_str());
    throw IoError("cannot serve " + path + ": " + why);
  }
  listener_ = std::move(fd);
  listener_path_ = path;
  watch_listener(EPOLL_CTL_ADD);
}

void Core::watch_listener(int operation) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = listener_id;
  ::epoll_ctl(epoll_.get(), operation, listener_.get(), &event);
}

void Core::connect(const std::string& path, const std::string& name) {
  if (!is_valid_name(name)) throw LocalError("\"" + name + "\" is no name of an endpoint: wanted " + name_pattern);
  if (name == config_.name) throw LocalError("an endpoint cannot connect to itself: " + name + " is its own name");
  if (find_peer(name)) throw LocalError(config_.name + " is connected to " + name + " already");
  Fd fd = unix_socket();
  if (connect_to(fd, address_of(path)) != 0) {
    throw IoError("cannot connect to " + name + " at " + path + ": " + reason() + (errno == EAGAIN ? " (busy)" : ""));
  }
  add(std::move(fd), Role::connector, name);
}

void Core::adopt(Fd fd, Role role, const std::string& wanted_name) {
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    throw IoError("a socket could not be adopted: " + reason());
  }
  add(std::move(fd), role, wanted_name);
}

void Core::add(Fd fd, Role role, const std::string& wanted_name) {
  auto connection = std::make_shared<Connection>(++last_connection_, std::move(fd), role, config_, catalog_,
                                                 Clock::now(), wanted_name);
  epoll_event event{};
  event.events = connection->interest = EPOLLIN;
  event.data.u64 = connection->id;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, connection->fd.get(), &event) != 0) {
    throw IoError("a connection could not be watched: " + reason());
  }
  connections_.push_back(std::move(connection));
  wake_for_output();
}

void Core::accept_all() {
  while (listener_) {
    Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd) {
      add(std::move(fd), Role::acceptor, "");
    } else if (errno != EINTR && errno != ECONNABORTED) {
      // Out of descriptors: the connection waits, and asking again at once would not help it.
      if (errno != EAGAIN) {
        listener_paused_until_ = Clock::now() + std::chrono::milliseconds(100);
        watch_listener(EPOLL_CTL_DEL);
      }
      return;
    }
  }
}

void Core::disconnect(const std::string& peer) {
  for (const auto& connection : connections_) {
    if (connection->alive() && connection->session.accepted() && connection->session.peer().name == peer) {
      connection->session.goodbye(GoodbyeCode::shutdown, "disconnected", Clock::now());
      pump(connection);
    }
  }
  wake_for_output();
}

// --- one connection ---

bool Core::read(const ConnectionPtr& connection) {
  std::size_t total = 0;
  while (connection->fd && !connection->session.deciding() && total < read_at_once) {
    auto space = connection->session.receive_space();
    const ssize_t count = ::read(connection->fd.get(), space.begin(), space.size());
    if (count > 0) {
      const auto bytes = static_cast<std::size_t>(count);
      total += bytes;
      connection->session.received(bytes, Clock::now());
      pump(connection);
      if (bytes < space.size()) return true;
    } else if (count < 0 && errno == EINTR) {
      continue;
    } else if (count < 0 && errno == EAGAIN) {
      return true;
    } else {
      connection->session.stream_ended(count == 0 ? "end of stream" : reason());
      pump(connection);
      return true;
    }
  }
  return false;
}

// A peer that takes no more bytes has gone, or will have soon: but what it said before, such as goodbye, counts.
void Core::look_at_broken(const ConnectionPtr& connection) {
  if (!connection->write_failed || !connection->fd) return;
  if (connection->session.deciding() || read(connection)) {
    connection->session.stream_ended("the stream takes no more bytes");
    pump(connection);
  }
}

void Core::pump(const ConnectionPtr& connection) {
  while (auto event = connection->session.next(Clock::now())) handle(connection, std::move(*event));
}

void Core::handle(const ConnectionPtr& connection, SessionEvent event) {
  if (auto* arrived = std::get_if<EventArrived>(&event)) {
    event_arrived(connection, std::move(*arrived));
  } else if (auto* request = std::get_if<RequestArrived>(&event)) {
    request_arrived(connection, std::move(*request));
  } else if (auto* response = std::get_if<ResponseArrived>(&event)) {
    response_arrived(*connection, std::move(*response));
  } else if (auto* failed = std::get_if<FailedArrived>(&event)) {
    failed_arrived(*connection, *failed);
  } else if (std::holds_alternative<HelloArrived>(event)) {
    decide(connection);
  } else if (std::holds_alternative<CameUp>(event)) {
    came_up(connection);
  } else if (std::holds_alternative<SubscriptionsChanged>(event)) {
    subscriptions_changed(connection);
  } else if (auto* why = std::get_if<Ended>(&event)) {
    ended(connection, *why);
  }
}

void Core::write(Connection& connection) {
  constexpr std::size_t most_pieces = 64;
  kj::ArrayPtr<const kj::byte> pieces[most_pieces];
  iovec vectors[most_pieces];
  Session& session = connection.session;
  while (connection.fd && !connection.write_failed) {
    const std::size_t count = session.collect(kj::arrayPtr(pieces, most_pieces));
    if (count == 0) break;
    for (std::size_t i = 0; i < count; ++i) {
      vectors[i] = {const_cast<kj::byte*>(pieces[i].begin()), pieces[i].size()};
    }
    msghdr message{};
    message.msg_iov = vectors;
    message.msg_iovlen = count;
    const ssize_t sent = ::sendmsg(connection.fd.get(), &message, MSG_NOSIGNAL);
    if (sent >= 0) {
      session.sent(static_cast<std::size_t>(sent), Clock::now());
    } else if (errno == EAGAIN) {
      connection.writable = false;
      return;
    } else if (errno != EINTR) {
      // The peer's goodbye may still wait to be read: reading tells how the connection ended.
      connection.write_failed = true;
      wake();
    }
  }
  connection.writable = true;
  if (session.output_ended() && !connection.write_ended && connection.fd) {
    connection.write_ended = true;
    ::shutdown(connection.fd.get(), SHUT_WR);
  }
}

void Core::watch(Connection& connection) {
  if (!connection.fd) return;
  // While it waits for a decision nothing is read from it, but that it went away is seen.
  std::uint32_t interest = connection.session.deciding() ? EPOLLRDHUP : EPOLLIN;
  if (!connection.writable && !connection.write_failed) interest |= EPOLLOUT;
  if (interest == connection.interest) return;
  connection.interest = interest;
  epoll_event event{};
  event.events = interest;
  event.data.u64 = connection.id;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, connection.fd.get(), &event);
}

// --- one round ---

void Core::step(std::chrono::milliseconds timeout) {
  ++depth_;
  write_all();
  epoll_event events[64];
  const int count = ::epoll_wait(epoll_.get(), events, 64, wait_ms(timeout, Clock::now()));
  for (int i = 0; i < count; ++i) {
    const std::uint64_t id = events[i].data.u64;
    std::uint64_t ignored;
    if (id == wake_id || id == timer_id) {
      // Both say nothing but that there is something to do; and level-triggered, they say it until they are read.
      if (::read(id == wake_id ? wake_.get() : timer_.get(), &ignored, sizeof(ignored)) < 0) continue;
      if (id == timer_id) timer_armed_ = Instant::max();
    } else if (id == listener_id) {
      accept_all();
    } else {
      const auto found = std::find_if(connections_.begin(), connections_.end(),
                                      [=](const auto& connection) { return connection->id == id; });
      if (found == connections_.end() || !(*found)->fd) continue;
      const auto connection = *found;
      if ((events[i].events & EPOLLOUT) != 0) connection->writable = true;
      if (connection->session.deciding()) {
        if ((events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
          connection->session.stream_ended("end of stream");
          pump(connection);
        }
      } else {
        read(connection);
      }
    }
  }
  handle_times(Clock::now());
  if (!in_handler_) {
    run_posted();
    drain_deliveries();
  }
  write_all();
  close_ended();
  --depth_;
}

void Core::handle_times(Instant now) {
  look_at_probes(now);
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    const auto connection = connections_[i];
    look_at_broken(connection);
    connection->session.handle_time(now);
    // Deciding, or a goodbye above, may have let it go on.
    pump(connection);
  }
  time_out_requests(now);
  if (closing_) go_on_closing(now);
  if (listener_ && now >= listener_paused_until_) {
    listener_paused_until_ = Instant::max();
    watch_listener(EPOLL_CTL_ADD);
  }
}

void Core::write_all() {
  output_waits_ = false;
  if (std::exchange(subscriptions_changed_, false)) {
    for (const auto& connection : connections_) connection->session.update_subscriptions(Clock::now());
  }
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    const auto connection = connections_[i];
    if (connection->writable) write(*connection);
    watch(*connection);
  }
}

void Core::close_ended() {
  for (const auto& connection : connections_) {
    if (connection->session.state() == Session::State::closed) connection->fd.reset();
  }
  // A round further out goes through the list.
  if (depth_ > 1) return;
  const auto gone = std::remove_if(connections_.begin(), connections_.end(), [this](const auto& connection) {
    if (connection->fd) return false;
    ended_counters_ += connection->session.counters();
    return true;
  });
  connections_.erase(gone, connections_.end());
}

Instant Core::next_deadline() const {
  Instant next = listener_ ? listener_paused_until_ : Instant::max();
  for (const auto& connection : connections_) {
    next = std::min(next, connection->session.deadline());
    if (connection->probe) next = std::min(next, connection->probe->deadline);
    if (closing_ && connection->alive()) next = std::min(next, drain_deadline_);
  }
  for (const auto& [id, asked] : asked_) next = std::min(next, asked.deadline);
  return next;
}

int Core::wait_ms(std::chrono::milliseconds timeout, Instant now) const {
  if (!in_handler_ && !deliveries_.empty()) return 0;
  const Instant next = next_deadline();
  if (next != Instant::max()) {
    // Rounded up: a millisecond too early would be a round for nothing.
    const auto until = std::chrono::ceil<std::chrono::milliseconds>(next - now);
    timeout = std::min(timeout, std::max(until, std::chrono::milliseconds(0)));
  }
  return static_cast<int>(std::min<std::int64_t>(timeout.count(), 3600 * 1000));
}

// For whoever watches fd() alone.
void Core::arm_timer() {
  const Instant next = deliveries_.empty() && !output_waits_ ? next_deadline() : Clock::now();
  if (next == timer_armed_) return;
  timer_armed_ = next;
  itimerspec when{};
  if (next != Instant::max()) {
    // The clock's start is that of CLOCK_MONOTONIC; a time of zero would disarm.
    const auto since = std::max<std::int64_t>(
        1, std::chrono::duration_cast<std::chrono::nanoseconds>(next.time_since_epoch()).count());
    when.it_value.tv_sec = since / 1000000000;
    when.it_value.tv_nsec = since % 1000000000;
  }
  ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
}

void Core::wake() {
  const std::uint64_t one = 1;
  // It can fail only when it is readable already.
  if (::write(wake_.get(), &one, sizeof(one)) < 0) return;
}

void Core::wake_for_output() {
  // Within a round everything is written before it ends.
  if (depth_ > 0 || std::exchange(output_waits_, true)) return;
  wake();
}

void Core::poll(std::chrono::milliseconds timeout) {
  if (in_handler_) throw LocalError("poll(), run() and close() cannot be called by a handler of the same endpoint");
  step(timeout);
  arm_timer();
}

void Core::run() {
  while (!stopping_) poll(std::chrono::hours(1));
  close();
}

void Core::stop() {
  stopping_ = true;
  wake();
}

void Core::post(Callback<void()> work) {
  {
    const std::lock_guard<std::mutex> lock(posted_mutex_);
    posted_.push_back(std::move(work));
  }
  wake();
}

void Core::run_posted() {
  std::vector<Callback<void()>> work;
  {
    const std::lock_guard<std::mutex> lock(posted_mutex_);
    work.swap(posted_);
  }
  for (auto& next : work) guarded([&] { next(); });
}

void Core::begin_close() {
  if (std::exchange(closing_, true)) return;
  if (listener_) {
    ::unlink(listener_path_.c_str());
    listener_.reset();
  }
  drain_deadline_ = Clock::now() + std::chrono::seconds(2);
  wake();
}

// Says goodbye to whom nothing is left to be sent, or no time.
void Core::go_on_closing(Instant now) {
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    const auto connection = connections_[i];
    Session& session = connection->session;
    if (session.state() == Session::State::up && !session.idle() && now < drain_deadline_) continue;
    session.goodbye(GoodbyeCode::shutdown, "the endpoint stops", now);
    pump(connection);
  }
}

void Core::close() {
  begin_close();
  while (!connections_.empty() || !deliveries_.empty()) poll(std::chrono::hours(1));
}

}  // namespace lahja_capn
