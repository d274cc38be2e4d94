// Frames: docs/wire.md, section 2. No sockets and no clocks here.
#pragma once

#include <capnp/message.h>
#include <capnp/schema.h>
#include <capnp/serialize.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "lahja_capn/errors.h"

namespace lahja_capn {

inline constexpr std::size_t header_bytes = 16;
// 12 bytes of header, a segment table of 8 and one word.
inline constexpr std::uint32_t min_data_length = 28;
inline constexpr std::uint32_t max_control_frame = 1u << 20;
inline constexpr std::uint32_t min_frame_limit = 1024;
inline constexpr std::uint32_t max_frame_limit = (1u << 31) - 8;
inline constexpr std::uint32_t max_segments = 512;
inline constexpr std::uint64_t unlimited = ~std::uint64_t{0};
inline constexpr std::uint64_t max_balance = (std::uint64_t{1} << 63) - 1;

enum class FrameKind : std::uint16_t { event = 0, request = 1, response = 2, control = 3 };

// A received frame: a view of the buffer that it was received into, which it keeps alive. Cheap to move.
class Frame {
 public:
  Frame(FrameKind kind, std::uint16_t wire_id, std::uint64_t correlation,
        std::shared_ptr<kj::Array<capnp::word>> memory, kj::ArrayPtr<const capnp::word> words)
      : kind_(kind), wire_id_(wire_id), correlation_(correlation), memory_(std::move(memory)), words_(words) {}

  FrameKind kind() const { return kind_; }
  std::uint16_t wire_id() const { return wire_id_; }
  std::uint64_t correlation() const { return correlation_; }
  // DATA_LENGTH + 4: what limits and credit count.
  std::size_t size() const { return words_.size() * sizeof(capnp::word); }
  // The Cap'n Proto message in stream framing. Its table was checked.
  kj::ArrayPtr<const capnp::word> message() const { return words_.slice(2, words_.size()); }

  // To keep a frame for long: if it is a small part of its buffer, copies it into memory of its own.
  void compact();

 private:
  FrameKind kind_;
  std::uint16_t wire_id_;
  std::uint64_t correlation_;
  std::shared_ptr<kj::Array<capnp::word>> memory_;
  kj::ArrayPtr<const capnp::word> words_;
};

// How much a reader of one message may traverse. The message is hostile until proven otherwise: pointers may lead
// to the same bytes over and over. A handler that reads every field eight times is still within the limit.
capnp::ReaderOptions content_options(std::size_t message_words);
// Control messages are read once, from front to end: what reads out to more than itself overlaps.
capnp::ReaderOptions control_options(std::size_t message_words);

// Reads a message where it lies. The words, a checked message in stream framing, must outlive it.
class MessageView {
 public:
  MessageView(kj::ArrayPtr<const capnp::word> message, capnp::ReaderOptions options)
      : segments_(split(message, few_)), reader_(segments_, options) {}
  MessageView(const MessageView&) = delete;
  MessageView& operator=(const MessageView&) = delete;

  template <typename T>
  typename T::Reader root() {
    return reader_.getRoot<T>();
  }
  template <typename T>
  typename T::Reader root(capnp::StructSchema schema) {
    return reader_.getRoot<T>(schema);
  }

 private:
  using Segment = kj::ArrayPtr<const capnp::word>;
  struct Few {
    Segment inline_[4];
    kj::Array<Segment> many;
  };
  static kj::ArrayPtr<const Segment> split(kj::ArrayPtr<const capnp::word> message, Few& few);

  Few few_;
  kj::ArrayPtr<const Segment> segments_;
  capnp::SegmentArrayMessageReader reader_;
};

// Checks rules 5 to 8 of section 2 on a message in stream framing that should fill `message` exactly.
void check_message(kj::ArrayPtr<const capnp::word> message);

// Takes frames from bytes that come in pieces of any size.
class FrameReader {
 public:
  // frame_limit: for content.
  explicit FrameReader(std::uint32_t frame_limit) : frame_limit_(frame_limit) {}

  // Where the next bytes go: never empty, valid until received().
  kj::ArrayPtr<kj::byte> space();
  void received(std::size_t bytes);

  // The next whole frame. Content is refused while it is not allowed. Throws ProtocolError.
  std::optional<Frame> next(bool content_allowed);

  // How many bytes of the stream lie before the next frame.
  std::uint64_t position() const { return taken_; }
  bool between_frames() const { return begin_ == end_; }

 private:
  void check_header(bool content_allowed);
  const kj::byte* bytes() const;

  std::uint32_t frame_limit_;
  std::shared_ptr<kj::Array<capnp::word>> buffer_;
  // Byte offsets into buffer_; begin_ is a multiple of 8, as every frame's size is.
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  // Of the frame at begin_: 0 until its header was checked.
  std::size_t frame_bytes_ = 0;
  FrameKind kind_ = FrameKind::control;
  std::uint64_t taken_ = 0;
};

// A frame to be sent. An event's is the same for every peer, so it is made once and shared.
class OutFrame {
 public:
  OutFrame(FrameKind kind, std::uint16_t wire_id, capnp::MessageBuilder& message);

  std::size_t size() const { return words_.size() * sizeof(capnp::word); }
  // The whole frame; CORRELATION is zero, its sender puts it in.
  kj::ArrayPtr<const kj::byte> bytes() const { return words_.asBytes(); }

 private:
  kj::Array<capnp::word> words_;
};

using SharedFrame = std::shared_ptr<const OutFrame>;

// Little-endian, whatever the machine.
std::uint16_t load16(const kj::byte* from);
std::uint32_t load32(const kj::byte* from);
std::uint64_t load64(const kj::byte* from);
void store16(kj::byte* to, std::uint16_t value);
void store32(kj::byte* to, std::uint32_t value);
void store64(kj::byte* to, std::uint64_t value);

}  // namespace lahja_capn
