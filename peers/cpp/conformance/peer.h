// `conformance peer`: an endpoint that does what JSON lines say. peers/README.md has the protocol.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "values.h"

namespace conformance_program {

struct PeerOptions {
  lahja_capn::Config config;
  std::string serve;
  std::string connect;
  std::string expect;
};

class Peer {
 public:
  explicit Peer(const PeerOptions& options);
  // Until `stop` or the end of standard input.
  int run();

 private:
  // A command that is not done yet. Called once a round until it returns true.
  using Job = std::function<bool()>;

  void say(const Json& line);
  void watch();
  bool read_input();
  void obey();
  void start(const Json& command);
  void subscribe(const std::string& type);
  void take_count(std::uint64_t number);
  void count(const Json& command);
  void request(const Json& command);
  void serve_requests();
  // Done when the peer has acknowledged all that we asked for.
  Job acknowledged(const char* answer);
  Job broadcast(const std::string& type, std::unique_ptr<capnp::MallocMessageBuilder> message);
  Json status() const;
  bool is_up() const { return !remote_.empty(); }

  const PeerOptions options_;
  lahja_capn::Endpoint endpoint_;
  std::string input_;
  bool input_ended_ = false;
  bool stop_ = false;
  std::deque<std::string> commands_;
  // The one that holds up the commands behind it, and those that do not.
  Job waiting_;
  std::vector<Job> jobs_;

  // The peer that came up last, and how many have.
  std::string remote_;
  std::size_t ups_ = 0;
  std::map<std::string, lahja_capn::Subscription> subscriptions_;
  lahja_capn::Subscription serving_;
  // Answers that are never given.
  std::vector<lahja_capn::Reply> silent_;
  std::uint64_t counted_ = 0;
  std::uint64_t last_count_ = 0;
  bool in_order_ = true;
};

}  // namespace conformance_program
