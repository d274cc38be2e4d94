#include <algorithm>

#include "lahja_capn/session.h"

namespace lahja_capn {

namespace {

// Up to this size a copy costs less than a piece of its own in the system call.
constexpr std::size_t small_frame = 4096;
constexpr std::size_t joined_bytes = 64 * 1024;

}  // namespace

kj::ArrayPtr<const kj::byte> OutBuffer::Piece::rest() const {
  const auto all = shared ? shared->bytes() : kj::arrayPtr(own.data(), own.size());
  return all.slice(begin, all.size());
}

void OutBuffer::push(const SharedFrame& frame, std::uint64_t correlation) {
  const auto bytes = frame->bytes();
  const bool joins = bytes.size() <= small_frame;
  const std::size_t copied = joins ? bytes.size() : header_bytes;
  if (pieces_.empty() || pieces_.back().shared || pieces_.back().own.size() + copied > joined_bytes) {
    pieces_.emplace_back();
    if (joins) pieces_.back().own.reserve(4 * small_frame);
  }
  auto& own = pieces_.back().own;
  own.insert(own.end(), bytes.begin(), bytes.begin() + copied);
  store64(own.data() + own.size() - copied + 8, correlation);
  if (!joins) {
    pieces_.emplace_back();
    pieces_.back().shared = frame;
    pieces_.back().begin = header_bytes;
  }
  size_ += bytes.size();
}

std::size_t OutBuffer::collect(kj::ArrayPtr<kj::ArrayPtr<const kj::byte>> into) const {
  const std::size_t count = std::min(into.size(), pieces_.size());
  for (std::size_t i = 0; i < count; ++i) into[i] = pieces_[i].rest();
  return count;
}

void OutBuffer::sent(std::size_t bytes) {
  size_ -= bytes;
  sent_ += bytes;
  while (bytes > 0) {
    Piece& first = pieces_.front();
    const std::size_t part = std::min(bytes, first.rest().size());
    first.begin += part;
    bytes -= part;
    if (first.rest().size() == 0) pieces_.pop_front();
  }
}

void OutBuffer::clear() {
  pieces_.clear();
  size_ = 0;
}

// --- windows ---

void Window::grant(std::uint64_t size) {
  unlimited_ = size == unlimited;
  balance_ = unlimited_ ? 0 : static_cast<std::int64_t>(size);
}

void Window::charge(std::size_t bytes) {
  if (!unlimited_) balance_ -= static_cast<std::int64_t>(bytes);
}

void Window::refill(std::uint64_t bytes) {
  if (unlimited_) return;
  // Unsigned: a balance below zero leaves room for more than 2^63.
  const std::uint64_t room = max_balance - static_cast<std::uint64_t>(balance_);
  if (bytes > room) {
    throw ProtocolError(GoodbyeCode::protocol_error, "credit of " + std::to_string(bytes) + " bytes on a balance of " +
                                                         std::to_string(balance_) + ": the limit is 2^63 - 1");
  }
  balance_ = static_cast<std::int64_t>(static_cast<std::uint64_t>(balance_) + bytes);
}

GrantedWindow::GrantedWindow(std::uint64_t size) : size_(size) { window_.grant(size); }

void GrantedWindow::arrived(std::size_t bytes, const char* kind) {
  if (!window_.is_open()) {
    throw ProtocolError(GoodbyeCode::credit_exceeded, std::string(kind) + " of " + std::to_string(bytes) +
                                                          " bytes without credit: the window is " +
                                                          std::to_string(size_) + " bytes");
  }
  window_.charge(bytes);
}

std::uint64_t GrantedWindow::take_due() {
  const std::uint64_t bytes = returned_;
  returned_ = 0;
  window_.refill(bytes);
  return bytes;
}

}  // namespace lahja_capn
