// Runs the scripts of conversations and refusals.
#include <algorithm>
#include <set>

#include "consumer.h"
#include "vectors.h"

namespace conformance_program {

namespace {

// Frames of these kinds are compared one by one; the others an implementation sends as it likes.
const char* const exact_kinds[] = {"event", "request", "response", "failed", "goodbye"};

bool is_sent(const Json& frame, const std::string& kind) { return frame.contains("sent") && frame["sent"] == kind; }

void patch(std::string& bytes, const Json& patch, const Consumer& consumer) {
  std::uint64_t number = patch.contains("request")
                             ? consumer.request_number(patch["request"].get<std::size_t>() - 1)
                             : consumer.last_sequence();
  number += patch.value("plus", std::uint64_t{0});
  lahja_capn::store64(reinterpret_cast<kj::byte*>(bytes.data()) + patch["at"].get<std::size_t>(), number);
}

bool has_ids(const Json& ids, const Json& names) {
  return std::all_of(names.begin(), names.end(), [&](const Json& name) {
    const std::string id = std::to_string(type_named(name).type_id());
    return std::find(ids.begin(), ids.end(), Json(id)) != ids.end();
  });
}

Json declared_ids(const Json& rows) {
  Json ids = Json::array();
  for (const auto& row : rows) {
    if (row["wireId"] != 0) ids.push_back(row["typeId"]);
  }
  return ids;
}

// Whether the frame at `index` is the one; of credit, the sum so far counts.
bool matches(const std::vector<Json>& frames, std::size_t index, const Json& match) {
  const Json& frame = frames[index];
  if (frame["sent"] != match["sent"]) return false;
  for (const auto& [key, wanted] : match.items()) {
    if (frame["sent"] == "credit" && key != "sent") {
      std::uint64_t sum = 0;
      for (std::size_t i = 0; i <= index; ++i) {
        if (is_sent(frames[i], "credit")) sum += std::stoull(frames[i][key].get<std::string>());
      }
      if (sum < std::stoull(wanted.get<std::string>())) return false;
    } else if (key == "add" || key == "remove") {
      if (!has_ids(frame[key], wanted)) return false;
    } else if (key == "types") {
      if (!has_ids(declared_ids(frame["types"]), wanted)) return false;
    } else if (!frame.contains(key) || frame[key] != wanted) {
      return false;
    }
  }
  return true;
}

void await_frame(const Consumer& consumer, const Json& match, std::set<std::size_t>& taken) {
  const auto& frames = consumer.frames();
  for (std::size_t i = 0; i < frames.size(); ++i) {
    if (taken.count(i) > 0 || !matches(frames, i, match)) continue;
    if (match["sent"] != "credit") taken.insert(i);
    return;
  }
  std::string last = consumer.facts().empty() ? "" : consumer.facts().back().dump().substr(0, 300);
  fail(match.dump().substr(0, 500) + " was not sent; the last fact was " + last);
}

void compare_fact(const std::string& kind, Json got, const Json& wanted) {
  if (wanted.is_object() && wanted.value("unreadable", false)) {
    expect_equal(kind, got["type"], wanted["type"]);
    return;
  }
  if (kind == "closed" && wanted["code"].is_null()) got["code"] = nullptr;
  if (kind == "failed") {
    Json common = Json::object();
    for (const auto& [key, value] : wanted.items()) common[key] = got.value(key, Json());
    got = common;
  }
  expect_equal(kind, got, wanted);
}

std::vector<Json> of_kind(const std::vector<Json>& facts, const std::string& kind) {
  std::vector<Json> found;
  for (const auto& fact : facts) {
    if (fact.contains(kind) && !fact.contains("sent")) found.push_back(fact[kind]);
  }
  return found;
}

// The consumer said goodbye with one of the codes, as its last frame. Adds what follows from that to `wanted`.
void check_refusal(const Vector& vector, const Consumer& consumer, std::vector<Json>& wanted) {
  const Json& codes = vector.facts["goodbye"];
  const auto has = [&](const Json& code) { return std::find(codes.begin(), codes.end(), code) != codes.end(); };
  const auto closed = of_kind(consumer.facts(), "closed");
  if (closed.empty() && has("")) return;
  if (closed.size() != 1) fail("not refused, wanted goodbye " + codes.dump());
  if (!has(closed[0]["code"])) fail("refused with " + closed[0].dump() + ", wanted " + codes.dump());
  expect_equal("by_peer", closed[0]["by_peer"], false);
  const Json& last = consumer.frames().back();
  if (!is_sent(last, "goodbye")) fail("the last frame is no goodbye");
  expect_equal("code of the goodbye", last["code"], closed[0]["code"]);
  if (!consumer.output_ended()) fail("its direction of the stream did not end after the goodbye");
  wanted.push_back({{"closed", closed[0]}});
  wanted.push_back({{"sent", "goodbye"}, {"code", closed[0]["code"]}});
}

void compare(const Vector& vector, const Consumer& consumer) {
  std::vector<Json> wanted(vector.facts["expect"].begin(), vector.facts["expect"].end());
  if (vector.folder == "refusals") check_refusal(vector, consumer, wanted);
  for (const std::string kind : {"up", "event", "request", "answered", "failed", "lost", "closed"}) {
    const auto want = of_kind(wanted, kind);
    const auto have = of_kind(consumer.facts(), kind);
    if (want.size() != have.size()) {
      fail(kind + ": " + std::to_string(have.size()) + " facts, wanted " + std::to_string(want.size()) + ": " +
           Json(have).dump().substr(0, 500));
    }
    for (std::size_t i = 0; i < want.size(); ++i) compare_fact(kind, have[i], want[i]);
  }
  for (const std::string kind : exact_kinds) {
    std::vector<Json> want;
    std::vector<Json> have;
    for (const auto& fact : wanted) {
      if (is_sent(fact, kind)) want.push_back(fact);
    }
    for (const auto& frame : consumer.frames()) {
      if (is_sent(frame, kind)) have.push_back(frame);
    }
    if (want.size() != have.size()) {
      fail("sent " + kind + ": " + std::to_string(have.size()) + ", wanted " + std::to_string(want.size()) + ": " +
           Json(have).dump().substr(0, 500));
    }
    for (std::size_t i = 0; i < want.size(); ++i) {
      for (const auto& [key, value] : want[i].items()) {
        expect_equal("sent " + kind + ", " + key, have[i].value(key, Json()), value);
      }
    }
  }
  const auto counters = consumer.counters();
  const Json numbers = vector.facts.value("counters", Json::object());
  for (const auto& [name, number] : numbers.items()) {
    if (name == "skipped") expect_equal(name, counters.events_skipped, number);
    if (name == "late") expect_equal(name, counters.late_answers, number);
  }
}

}  // namespace

void run_conversation(const Vector& vector, std::size_t step_bytes) {
  Consumer consumer(vector.facts["role"], vector.facts.value("setup", Json::object()));
  std::set<std::size_t> taken;
  std::size_t at = 0;
  std::size_t number = 0;
  for (const auto& step : vector.facts["script"]) {
    try {
      if (step.contains("send")) {
        const auto size = step["send"].get<std::size_t>();
        if (size > vector.bytes.size() - at) fail("the vector has fewer bytes");
        std::string bytes = vector.bytes.substr(at, size);
        at += size;
        for (const auto& change : step.value("patch", Json::array())) patch(bytes, change, consumer);
        consumer.receive(bytes, step_bytes);
      } else if (step.contains("await")) {
        await_frame(consumer, step["await"], taken);
      } else if (step.contains("count")) {
        const auto& frames = consumer.frames();
        const auto count = std::count_if(frames.begin(), frames.end(),
                                         [&](const Json& frame) { return is_sent(frame, step["count"]); });
        expect_equal("frames sent", count, step["is"]);
      } else if (step.contains("do")) {
        consumer.act(step);
      } else if (step.contains("eof")) {
        consumer.end_of_stream();
      } else {
        fail("a step that this runner does not know");
      }
    } catch (const std::exception& error) {
      fail("step " + std::to_string(number) + " " + step.dump().substr(0, 100) + ": " + error.what());
    }
    ++number;
  }
  if (at != vector.bytes.size()) fail(std::to_string(vector.bytes.size() - at) + " bytes are in no step");
  compare(vector, consumer);
}

}  // namespace conformance_program
