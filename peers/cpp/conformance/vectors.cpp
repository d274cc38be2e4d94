#include "vectors.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>

#include "control.h"
#include "lahja_capn/wire.capnp.h"

namespace conformance_program {

namespace {

namespace fs = std::filesystem;
using capnp::DynamicStruct;
using lahja_capn::Frame;
using lahja_capn::FrameKind;
using lahja_capn::FrameReader;
using lahja_capn::MessageView;
using lahja_capn::OutFrame;

std::string repeated(const std::string& part, std::size_t times) {
  std::string whole;
  whole.reserve(part.size() * times);
  for (std::size_t i = 0; i < times; ++i) whole += part;
  return whole;
}

// Puts the long values in place of their short forms.
void expand(Json& json) {
  if (json.is_object() && json.contains("times") && (json.contains("repeat") || json.contains("repeat_text"))) {
    const auto& part = json.contains("repeat") ? json["repeat"] : json["repeat_text"];
    json = repeated(part.get<std::string>(), json["times"].get<std::size_t>());
  } else if (json.is_structured()) {
    for (auto& element : json) expand(element);
  }
}

Vector load(const fs::path& path) {
  Vector vector{path.parent_path().filename().string(), path.stem().string(), {}, {}};
  std::ifstream text(path);
  vector.facts = Json::parse(text);
  const fs::path bytes = fs::path(path).replace_extension(".bin");
  if (fs::exists(bytes)) {
    std::ifstream file(bytes, std::ios::binary);
    vector.bytes.assign(std::istreambuf_iterator<char>(file), {});
  } else if (vector.facts.contains("recipe")) {
    for (const auto& part : vector.facts["recipe"]) {
      vector.bytes += part.contains("hex")
                          ? unhex(part["hex"])
                          : repeated(unhex(part["repeat"]), part["times"].get<std::size_t>());
    }
    vector.facts.erase("recipe");
  }
  expand(vector.facts);
  return vector;
}

kj::Array<capnp::word> aligned(const std::string& bytes) {
  auto words = kj::heapArray<capnp::word>((bytes.size() + 7) / 8);
  std::copy(bytes.begin(), bytes.end(), words.asBytes().begin());
  return words;
}

Json read_message(kj::ArrayPtr<const capnp::word> message, capnp::StructSchema schema) {
  MessageView view(message, lahja_capn::content_options(message.size()));
  return to_json(view.root<DynamicStruct>(schema));
}

std::size_t segments_of(kj::ArrayPtr<const capnp::word> message) {
  return std::size_t{lahja_capn::load32(message.asBytes().begin())} + 1;
}

// Writes a value, and reads what was written.
Json written_and_read(const Json& json, capnp::StructSchema schema) {
  capnp::MallocMessageBuilder builder;
  from_json(json, builder.initRoot<DynamicStruct>(schema));
  const OutFrame frame(FrameKind::event, 1, builder);
  const std::string bytes(reinterpret_cast<const char*>(frame.bytes().begin()), frame.size());
  const auto words = aligned(bytes);
  const auto message = words.slice(2, words.size());
  lahja_capn::check_message(message);
  return read_message(message, schema);
}

const char* kind_name(FrameKind kind) {
  switch (kind) {
    case FrameKind::event: return "event";
    case FrameKind::request: return "request";
    case FrameKind::response: return "response";
    case FrameKind::control: return "control";
  }
  return "?";
}

capnp::StructSchema schema_of(const Json& facts) {
  return schema_named(facts.at("type").get<std::string>());
}

}  // namespace

void fail(const std::string& what) { throw std::runtime_error(what); }

void expect_equal(const std::string& what, const Json& got, const Json& wanted) {
  if (got != wanted) fail(what + ": wanted " + wanted.dump().substr(0, 2000) + ", got " + got.dump().substr(0, 2000));
}

void run_message_vector(const Vector& vector) {
  const auto words = aligned(vector.bytes);
  if (vector.bytes.size() % 8 != 0) fail("the message is not whole words");
  lahja_capn::check_message(words);
  if (vector.facts.value("unreadable", false)) {
    try {
      read_message(words, schema_of(vector.facts));
    } catch (const kj::Exception&) {
    } catch (const std::exception&) {
    }
    return;
  }
  expect_equal("segments", segments_of(words), vector.facts.at("segments"));
  expect_equal("value", read_message(words, schema_of(vector.facts)), vector.facts.at("value"));
}

void run_value_vector(const Vector& vector) {
  expect_equal("value", written_and_read(vector.facts.at("build"), schema_of(vector.facts)),
               vector.facts.at("value"));
}

void run_frame_vector(const Vector& vector) {
  FrameReader reader(lahja_capn::max_frame_limit);
  std::optional<Frame> frame;
  // Byte by byte: no frame may come early.
  for (std::size_t i = 0; i < vector.bytes.size(); ++i) {
    if (frame) fail("a frame before its last byte");
    reader.space()[0] = static_cast<kj::byte>(vector.bytes[i]);
    reader.received(1);
    frame = reader.next(true);
  }
  if (!frame) fail("no frame after all bytes");
  if (!reader.between_frames()) fail("bytes are left behind the frame");
  expect_equal("kind", kind_name(frame->kind()), vector.facts.at("kind"));
  expect_equal("wire id", frame->wire_id(), vector.facts.at("wire_id"));
  expect_equal("correlation", std::to_string(frame->correlation()), vector.facts.at("correlation"));
  expect_equal("segments", segments_of(frame->message()), vector.facts.at("segments"));
  const bool is_control = frame->kind() == FrameKind::control;
  const auto schema = is_control ? schema_named("Control") : schema_of(vector.facts);
  const Json& wanted = is_control ? vector.facts.at("control") : vector.facts.at("value");
  if (is_control) {
    // The library's own reading, and its limit, besides reflection's.
    const auto message = lahja_capn::control::decode(frame->message());
    if (!std::holds_alternative<lahja_capn::control::Dropped>(message)) lahja_capn::control::encode(message);
  }
  expect_equal("value", read_message(frame->message(), schema), wanted);
  expect_equal("value written and read", written_and_read(wanted, schema), wanted);
}

int run_vectors(const std::string& folder) {
  struct Kind {
    const char* folder;
    void (*run)(const Vector&);
  };
  const Kind kinds[] = {
      {"messages", run_message_vector},
      {"values", run_value_vector},
      {"frames", run_frame_vector},
      {"conversations",
       [](const Vector& vector) {
         run_conversation(vector, 0);
         run_conversation(vector, vector.bytes.size() > 10000 ? 4099 : 1);
       }},
      {"refusals",
       [](const Vector& vector) {
         run_conversation(vector, 0);
         run_conversation(vector, vector.bytes.size() > 10000 ? 4099 : 1);
       }},
  };
  std::size_t passed = 0;
  std::size_t failed = 0;
  for (const auto& kind : kinds) {
    std::vector<fs::path> paths;
    if (!fs::is_directory(fs::path(folder) / kind.folder)) continue;
    for (const auto& entry : fs::directory_iterator(fs::path(folder) / kind.folder)) {
      if (entry.path().extension() == ".json") paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    for (const auto& path : paths) {
      std::string problem;
      try {
        kind.run(load(path));
      } catch (const kj::Exception& error) {
        problem = error.getDescription().cStr();
      } catch (const std::exception& error) {
        problem = error.what();
      }
      if (problem.empty()) {
        ++passed;
      } else {
        ++failed;
        std::cout << kind.folder << "/" << path.stem().string() << ": " << problem << "\n";
      }
    }
  }
  std::cout << passed << " passed, " << failed << " failed" << std::endl;
  return passed > 0 && failed == 0 ? 0 : 1;
}

}  // namespace conformance_program
