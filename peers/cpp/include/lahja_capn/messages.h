// Building messages, and what a request comes to.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lahja_capn/types.h"
#include "lahja_capn/wire.h"

namespace lahja_capn {

// A message with T as its root, filled by `fill(T::Builder)`.
template <typename T, typename Fill>
std::unique_ptr<capnp::MallocMessageBuilder> build(Fill&& fill) {
  auto message = std::make_unique<capnp::MallocMessageBuilder>(128);
  fill(message->initRoot<T>());
  return message;
}

// Why one peer gave no answer that is of use.
struct Failure {
  std::string peer;
  // What the peer said; nothing if it answered with a type that was not wanted, or is gone.
  std::optional<FailedCode> code;
  std::string type_name;
  std::string text;
};

enum class OutcomeKind {
  answered,
  // Every peer that was asked failed, or is gone; at least one failed.
  failed,
  timed_out,
  // The connection ended first.
  lost,
};

struct RawOutcome {
  OutcomeKind kind;
  // Of the peer that answered.
  std::string peer;
  std::optional<Frame> answer;
  std::vector<Failure> failures;
};

// What a request came to. Owns the answer's bytes; move-only.
template <typename Answer>
class Outcome {
 public:
  explicit Outcome(RawOutcome&& raw) : raw_(std::move(raw)) {
    if (raw_.answer) {
      raw_.answer->compact();
      const auto message = raw_.answer->message();
      view_ = std::make_unique<MessageView>(message, content_options(message.size()));
    }
  }

  OutcomeKind kind() const { return raw_.kind; }
  explicit operator bool() const { return raw_.kind == OutcomeKind::answered; }
  const std::string& peer() const { return raw_.peer; }
  const std::vector<Failure>& failures() const { return raw_.failures; }

  // The answer. Throws Error if there is none. The Reader is valid as long as this object.
  typename Answer::Reader value() {
    if (!view_) throw Error("a request without an answer: " + text());
    return view_->template root<Answer>();
  }

  // For people.
  std::string text() const {
    switch (raw_.kind) {
      case OutcomeKind::answered: return "answered by " + raw_.peer;
      case OutcomeKind::timed_out: return "timed out";
      case OutcomeKind::lost: return "the peer is gone";
      case OutcomeKind::failed: break;
    }
    std::string text = "failed";
    for (const Failure& failure : raw_.failures) {
      text += "; " + failure.peer + ": " + (failure.code ? to_string(*failure.code) + " " : std::string()) +
              failure.type_name + " " + failure.text;
    }
    return text;
  }

 private:
  RawOutcome raw_;
  std::unique_ptr<MessageView> view_;
};

}  // namespace lahja_capn
