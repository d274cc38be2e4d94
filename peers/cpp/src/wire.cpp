#include "lahja_capn/wire.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace lahja_capn {

namespace {

// Large enough that many small frames arrive in one read, small enough for the second-level cache.
constexpr std::size_t buffer_bytes = 128 * 1024;

[[noreturn]] void refuse(const std::string& what, GoodbyeCode code = GoodbyeCode::protocol_error) {
  throw ProtocolError(code, what);
}

std::size_t table_words(std::uint64_t segments) { return segments / 2 + 1; }

std::string shown(const kj::byte* bytes, std::size_t count) {
  std::string text;
  for (std::size_t i = 0; i < count; ++i) {
    const char c = static_cast<char>(bytes[i]);
    if (c >= ' ' && c <= '~') {
      text += c;
    } else {
      static const char digits[] = "0123456789abcdef";
      text += {'\\', 'x', digits[bytes[i] >> 4], digits[bytes[i] & 15]};
    }
  }
  return text;
}

}  // namespace

std::uint16_t load16(const kj::byte* from) { return static_cast<std::uint16_t>(from[0] | from[1] << 8); }
std::uint32_t load32(const kj::byte* from) {
  return static_cast<std::uint32_t>(load16(from)) | static_cast<std::uint32_t>(load16(from + 2)) << 16;
}
std::uint64_t load64(const kj::byte* from) {
  return static_cast<std::uint64_t>(load32(from)) | static_cast<std::uint64_t>(load32(from + 4)) << 32;
}
void store16(kj::byte* to, std::uint16_t value) {
  to[0] = static_cast<kj::byte>(value);
  to[1] = static_cast<kj::byte>(value >> 8);
}
void store32(kj::byte* to, std::uint32_t value) {
  store16(to, static_cast<std::uint16_t>(value));
  store16(to + 2, static_cast<std::uint16_t>(value >> 16));
}
void store64(kj::byte* to, std::uint64_t value) {
  store32(to, static_cast<std::uint32_t>(value));
  store32(to + 4, static_cast<std::uint32_t>(value >> 32));
}

capnp::ReaderOptions content_options(std::size_t message_words) {
  capnp::ReaderOptions options;
  // A page of slack lets small messages be read as often as anybody likes.
  options.traversalLimitInWords = message_words * 8 + 8192;
  options.nestingLimit = 64;
  return options;
}

capnp::ReaderOptions control_options(std::size_t message_words) {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = message_words;
  // Control, Hello, list, TypeRow, text: nothing of wire.capnp is nested deeper.
  options.nestingLimit = 8;
  return options;
}

void Frame::compact() {
  if (memory_ == nullptr || words_.size() * 2 >= memory_->size()) return;
  auto own = std::make_shared<kj::Array<capnp::word>>(kj::heapArray<capnp::word>(words_.size()));
  std::memcpy(own->begin(), words_.begin(), words_.asBytes().size());
  words_ = own->asPtr();
  memory_ = std::move(own);
}

kj::ArrayPtr<const MessageView::Segment> MessageView::split(kj::ArrayPtr<const capnp::word> message, Few& few) {
  const kj::byte* table = message.asBytes().begin();
  const std::size_t count = std::size_t{load32(table)} + 1;
  Segment* segments = few.inline_;
  if (count > std::size(few.inline_)) {
    few.many = kj::heapArray<Segment>(count);
    segments = few.many.begin();
  }
  const capnp::word* at = message.begin() + table_words(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t words = load32(table + 4 + 4 * i);
    segments[i] = kj::arrayPtr(at, words);
    at += words;
  }
  return kj::arrayPtr(static_cast<const Segment*>(segments), count);
}

void check_message(kj::ArrayPtr<const capnp::word> message) {
  const kj::byte* table = message.asBytes().begin();
  const std::uint64_t count = std::uint64_t{load32(table)} + 1;
  if (count > max_segments) {
    refuse("a message of " + std::to_string(count) + " segments: the limit is " + std::to_string(max_segments));
  }
  const std::size_t words = table_words(count);
  if (words >= message.size()) {
    refuse("a segment table of " + std::to_string(count) + " segments does not fit its frame of " +
           std::to_string(message.asBytes().size() + header_bytes) + " bytes");
  }
  if (count % 2 == 0 && load32(table + 4 + 4 * count) != 0) refuse("the padding of a segment table is not zero");
  if (load32(table + 4) == 0) refuse("the first segment of a message is empty");
  std::uint64_t sum = words;
  for (std::uint64_t i = 0; i < count; ++i) sum += load32(table + 4 + 4 * i);
  if (sum != message.size()) {
    refuse("table and segments take " + std::to_string(sum * 8 + header_bytes) + " bytes of a frame of " +
           std::to_string(message.asBytes().size() + header_bytes));
  }
}

const kj::byte* FrameReader::bytes() const {
  return reinterpret_cast<const kj::byte*>(buffer_->begin()) + begin_;
}

kj::ArrayPtr<kj::byte> FrameReader::space() {
  const std::size_t wanted = std::max(frame_bytes_, header_bytes);
  const std::size_t held = end_ - begin_;
  std::size_t capacity = buffer_ ? buffer_->asBytes().size() : 0;
  // Frames that are still in use keep their buffer: then nothing in it may move.
  const bool shared = buffer_.use_count() > 1;
  // A frame may have been let go by another thread: what that one read is read before it is written over.
  std::atomic_thread_fence(std::memory_order_acquire);
  // A buffer of odd size was made for one large frame.
  if (held == 0 && !shared && capacity == buffer_bytes) begin_ = end_ = 0;
  const bool fits = capacity - begin_ >= wanted && end_ < capacity;
  const bool outgrown = held == 0 && capacity != buffer_bytes;
  if (!fits || outgrown) {
    const std::size_t needed = std::max(wanted, buffer_bytes);
    if (shared || capacity < needed || outgrown) {
      auto next = std::make_shared<kj::Array<capnp::word>>(kj::heapArray<capnp::word>(needed / sizeof(capnp::word)));
      if (held > 0) std::memcpy(next->begin(), bytes(), held);
      buffer_ = std::move(next);
      capacity = needed;
    } else {
      std::memmove(buffer_->begin(), bytes(), held);
    }
    begin_ = 0;
    end_ = held;
  }
  kj::byte* start = reinterpret_cast<kj::byte*>(buffer_->begin());
  return kj::arrayPtr(start + end_, capacity - end_);
}

void FrameReader::received(std::size_t count) { end_ += count; }

void FrameReader::check_header(bool content_allowed) {
  const std::size_t held = end_ - begin_;
  if (held < 4) return;
  const std::uint32_t length = load32(bytes());
  try {
    if (length % 8 != 4 || length < min_data_length) {
      refuse("DATA_LENGTH is " + std::to_string(length) + ": wanted 4 modulo 8, and at least 28");
    }
    const std::uint64_t size = std::uint64_t{length} + 4;
    const auto too_large = [size](std::uint32_t limit) {
      if (size > limit) {
        refuse("a frame of " + std::to_string(size) + " bytes: the limit is " + std::to_string(limit),
               GoodbyeCode::frame_too_large);
      }
    };
    too_large(std::max(frame_limit_, max_control_frame));
    if (held < header_bytes) return;
    const std::uint16_t wire_id = load16(bytes() + 4);
    const std::uint16_t flags = load16(bytes() + 6);
    const std::uint64_t correlation = load64(bytes() + 8);
    const bool numbered = flags == 1 || flags == 2;
    if (flags > 2 || numbered != (correlation != 0) || (wire_id == 0 && flags != 0)) {
      refuse("EVENT_ID " + std::to_string(wire_id) + ", FLAGS " + std::to_string(flags) + " and CORRELATION " +
             std::to_string(correlation) + " do not go together");
    }
    too_large(wire_id == 0 ? max_control_frame : frame_limit_);
    if (wire_id != 0 && !content_allowed) refuse("content before the connection is up");
    kind_ = wire_id == 0 ? FrameKind::control : static_cast<FrameKind>(flags);
    frame_bytes_ = static_cast<std::size_t>(size);
  } catch (const ProtocolError& error) {
    // A stranger (HTTP, TLS) is known by its first bytes.
    if (taken_ > 0) throw;
    refuse(std::string(error.what()) + "; is this a peer? It began with \"" +
               shown(bytes(), std::min(held, header_bytes)) + "\"",
           error.code());
  }
}

std::optional<Frame> FrameReader::next(bool content_allowed) {
  if (frame_bytes_ == 0) check_header(content_allowed);
  if (frame_bytes_ == 0 || end_ - begin_ < frame_bytes_) return std::nullopt;
  const auto words = buffer_->slice(begin_ / sizeof(capnp::word), (begin_ + frame_bytes_) / sizeof(capnp::word));
  check_message(words.slice(2, words.size()));
  Frame frame(kind_, load16(bytes() + 4), load64(bytes() + 8), buffer_, words);
  begin_ += frame_bytes_;
  taken_ += frame_bytes_;
  frame_bytes_ = 0;
  return frame;
}

OutFrame::OutFrame(FrameKind kind, std::uint16_t wire_id, capnp::MessageBuilder& message) {
  const auto segments = message.getSegmentsForOutput();
  if (segments.size() == 0 || segments[0].size() == 0) throw LocalError("a message without a root cannot be sent");
  if (segments.size() > max_segments) {
    throw LocalError("a message of " + std::to_string(segments.size()) + " segments: peers accept " +
                     std::to_string(max_segments) + ". Give its builder a larger first segment");
  }
  std::uint64_t words = header_bytes / sizeof(capnp::word) + table_words(segments.size());
  for (const auto segment : segments) words += segment.size();
  if (words * sizeof(capnp::word) > max_frame_limit) {
    throw LocalError("a frame of " + std::to_string(words * sizeof(capnp::word)) + " bytes: no peer accepts more than " +
                     std::to_string(max_frame_limit));
  }
  words_ = kj::heapArray<capnp::word>(static_cast<std::size_t>(words));
  kj::byte* at = words_.asBytes().begin();
  store32(at, static_cast<std::uint32_t>(words_.asBytes().size() - 4));
  store16(at + 4, wire_id);
  store16(at + 6, kind == FrameKind::control ? std::uint16_t{0} : static_cast<std::uint16_t>(kind));
  store64(at + 8, 0);
  at += header_bytes;
  store32(at, static_cast<std::uint32_t>(segments.size() - 1));
  for (std::size_t i = 0; i < segments.size(); ++i) {
    store32(at + 4 + 4 * i, static_cast<std::uint32_t>(segments[i].size()));
  }
  if (segments.size() % 2 == 0) store32(at + 4 + 4 * segments.size(), 0);
  at += table_words(segments.size()) * sizeof(capnp::word);
  for (const auto segment : segments) {
    std::memcpy(at, segment.begin(), segment.asBytes().size());
    at += segment.asBytes().size();
  }
}

}  // namespace lahja_capn
