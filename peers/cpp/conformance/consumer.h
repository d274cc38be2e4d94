// The implementation under test in a conversation: an endpoint on one end of a socket pair, whose user does what a
// script says. The vector plays the peer at the other end.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "values.h"

namespace conformance_program {

class Consumer {
 public:
  Consumer(const std::string& role, const Json& setup);
  ~Consumer();

  // `bytes` arrive, `step` at a time.
  void receive(const std::string& bytes, std::size_t step);
  void end_of_stream();
  void act(const Json& step);

  // What the user saw, in order: {"up": …}, {"event": …}, …
  const std::vector<Json>& facts() const { return facts_; }
  // What was sent, in order: {"sent": kind, …}
  const std::vector<Json>& frames() const { return frames_; }
  std::uint64_t request_number(std::size_t index) const { return request_numbers_.at(index); }
  std::uint64_t last_sequence() const { return last_sequence_; }
  bool output_ended() const { return output_ended_; }
  lahja_capn::Counters counters() const { return endpoint_->counters(); }

 private:
  void settle();
  bool collect();
  void sent(const lahja_capn::Frame& frame);
  void advance(const std::string& variant);
  void subscribe(const std::string& type);
  void show_event(const lahja_capn::EventType& type, lahja_capn::MessageView& view);
  void ended(const lahja_capn::Ended& why);
  void ask(const Json& step);

  const Json setup_;
  std::unique_ptr<lahja_capn::Endpoint> endpoint_;
  int fd_ = -1;
  lahja_capn::FrameReader reader_{lahja_capn::max_frame_limit};
  bool output_ended_ = false;
  std::vector<Json> facts_;
  std::vector<Json> frames_;
  std::map<std::uint16_t, std::string> names_;
  std::string state_ = "opening";
  std::vector<std::uint64_t> request_numbers_;
  std::uint64_t last_sequence_ = 0;
  std::map<std::string, std::uint64_t> tags_;
  std::multimap<std::string, lahja_capn::Subscription> subscriptions_;
  std::vector<lahja_capn::Reply> unanswered_;
};

}  // namespace conformance_program
