// What nobody would write: damaged and random bytes. Nothing may crash, hang or take much memory; run it with
// `make test-asan` too.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "conformance.capnp.h"
#include "control.h"
#include "harness.h"
#include "values.h"
#include "vectors.h"

namespace {

namespace fs = std::filesystem;
using lahja_capn::Catalog;
using lahja_capn::Instant;
using lahja_capn::Role;
using lahja_capn::Session;
using lahja_capn::Settings;

std::vector<std::string> files_of(const char* folder) {
  std::vector<std::string> all;
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(fs::path(VECTORS) / folder)) {
    if (entry.path().extension() == ".bin" && fs::file_size(entry.path()) < 20000) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    all.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  if (all.empty()) throw std::runtime_error(std::string("no vectors in ") + folder);
  return all;
}

std::string damaged(std::string bytes, std::mt19937& random) {
  const auto below = [&](std::size_t end) { return std::uniform_int_distribution<std::size_t>(0, end - 1)(random); };
  for (std::size_t times = 1 + below(4); times > 0 && !bytes.empty(); --times) {
    const std::size_t at = below(bytes.size());
    switch (below(5)) {
      case 0: bytes[at] = static_cast<char>(random()); break;
      case 1: bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8))); break;
      case 2: bytes.erase(at / 8 * 8, 8); break;
      case 3: bytes.insert(at / 8 * 8, 8, static_cast<char>(below(2) == 0 ? 0 : 255)); break;
      default: bytes[at / 4 * 4] = static_cast<char>(below(16)); break;
    }
  }
  return bytes;
}

// Feeds a stream to a session whose user reads every field. Returns how it ended.
Session::State feed(const std::string& bytes, std::mt19937& random) {
  Settings settings;
  settings.name = "consumer";
  settings.instance = std::string(16, 'c');
  settings.frame_limit = 1 << 20;
  Catalog catalog;
  for (const char* type : {"Everything", "Count", "Blob", "Late", "Evolving", "Ask", "Answer"}) {
    catalog.declare(conformance_program::type_named(type));
    catalog.events_wanted.insert(conformance_program::type_named(type).type_id());
  }
  catalog.requests_served = {conformance_program::type_named("Ask").type_id()};
  Instant now{std::chrono::seconds(1)};
  Session session(Role::acceptor, settings, catalog, now);
  const auto read = [](const lahja_capn::EventType& type, const lahja_capn::Frame& frame) {
    try {
      lahja_capn::MessageView view(frame.message(), lahja_capn::content_options(frame.message().size()));
      const auto schema = conformance_program::schema_named(conformance_program::name_of(type.type_id()));
      conformance_program::to_json(view.root<capnp::DynamicStruct>(schema));
    } catch (const kj::Exception&) {
    } catch (const std::exception&) {
    }
  };
  const auto write = [&] {
    kj::ArrayPtr<const kj::byte> pieces[8];
    while (const std::size_t count = session.collect(kj::arrayPtr(pieces, 8))) {
      std::size_t size = 0;
      for (std::size_t i = 0; i < count; ++i) size += pieces[i].size();
      session.sent(size, now);
    }
  };
  for (std::size_t at = 0; at < bytes.size();) {
    auto space = session.receive_space();
    const std::size_t most = std::min(space.size(), bytes.size() - at);
    const std::size_t part = 1 + std::uniform_int_distribution<std::size_t>(0, most - 1)(random);
    std::copy_n(bytes.data() + at, part, space.begin());
    session.received(part, now);
    at += part;
    while (auto event = session.next(now)) {
      if (std::holds_alternative<lahja_capn::HelloArrived>(*event)) session.accept();
      if (auto* arrived = std::get_if<lahja_capn::EventArrived>(&*event)) {
        session.event_taken(arrived->frame.size());
        read(*arrived->type, arrived->frame);
      } else if (auto* request = std::get_if<lahja_capn::RequestArrived>(&*event)) {
        session.request_taken(request->frame.size());
        read(*request->type, request->frame);
      }
      write();
    }
    write();
  }
  session.stream_ended("end");
  return session.state();
}

}  // namespace

TEST(damaged_conversations_end_in_order) {
  std::mt19937 random(harness::seed());
  auto streams = files_of("conversations");
  for (auto& more : files_of("refusals")) streams.push_back(std::move(more));
  for (int round = 0; round < 10; ++round) {
    for (const auto& stream : streams) {
      CHECK(feed(damaged(stream, random), random) == Session::State::closed);
    }
  }
}

TEST(damaged_messages_are_read_or_refused) {
  std::mt19937 random(harness::seed());
  const auto messages = files_of("messages");
  std::size_t read = 0;
  for (int round = 0; round < 50; ++round) {
    for (const auto& message : messages) {
      const std::string bytes = damaged(message, random);
      auto words = kj::heapArray<capnp::word>(bytes.size() / 8);
      if (words.size() < 2) continue;
      std::copy_n(bytes.begin(), words.asBytes().size(), words.asBytes().begin());
      try {
        lahja_capn::check_message(words);
        lahja_capn::MessageView view(words, lahja_capn::content_options(words.size()));
        conformance_program::to_json(
            view.root<capnp::DynamicStruct>(conformance_program::schema_named("Everything")));
        ++read;
      } catch (const kj::Exception&) {
      } catch (const std::exception&) {
      }
    }
  }
  // Most damage is to data, not to structure.
  CHECK(read > messages.size());
}

TEST(damaged_control_messages_are_read_or_refused) {
  std::mt19937 random(harness::seed());
  std::size_t read = 0;
  for (int round = 0; round < 300; ++round) {
    for (const auto& frame : files_of("frames")) {
      const std::string bytes = damaged(frame.substr(lahja_capn::header_bytes), random);
      auto words = kj::heapArray<capnp::word>(bytes.size() / 8);
      if (words.size() < 2) continue;
      std::copy_n(bytes.begin(), words.asBytes().size(), words.asBytes().begin());
      try {
        lahja_capn::check_message(words);
        lahja_capn::control::decode(words);
        ++read;
      } catch (const lahja_capn::ProtocolError&) {
      }
    }
  }
  // Most damage to so short a message is to its structure, but not all.
  CHECK(read > 100);
}

TEST(rows_written_as_bytes_do_not_take_more_memory_than_they_came_in) {
  // Control {declare @1}: Declare {types}: a list of bytes, read as a list of structs that are a byte each.
  constexpr std::uint64_t rows = 8 * 100000;
  auto words = kj::heapArray<capnp::word>(5 + rows / 8);
  std::fill(words.asBytes().begin(), words.asBytes().end(), kj::byte{0});
  kj::byte* bytes = words.asBytes().begin();
  lahja_capn::store32(bytes + 4, static_cast<std::uint32_t>(words.size() - 1));
  lahja_capn::store64(bytes + 8, std::uint64_t{1} << 32 | std::uint64_t{1} << 48);
  lahja_capn::store16(bytes + 16, 1);
  lahja_capn::store64(bytes + 24, std::uint64_t{1} << 48);
  lahja_capn::store64(bytes + 32, 1 | std::uint64_t{2} << 32 | rows << 35);
  lahja_capn::check_message(words);
  std::string problem;
  try {
    lahja_capn::control::decode(words);
  } catch (const lahja_capn::ProtocolError& error) {
    problem = error.what();
  }
  CHECK(problem.find("800000 rows") != std::string::npos);
}

TEST(utf_8_is_judged_strictly) {
  const auto valid = [](const std::string& text) { return lahja_capn::control::is_utf8(text.data(), text.size()); };
  CHECK(valid(""));
  CHECK(valid("a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"));
  CHECK(valid(std::string("\0", 1)));
  CHECK(valid("\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf"));
  for (const char* text : {"\x80", "\xc0\x80", "\xc1\xbf", "\xc3", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
                           "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xe2\x82", "\xc3\x28"}) {
    CHECK(!valid(text));
  }
}
