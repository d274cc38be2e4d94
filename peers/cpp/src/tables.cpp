// Id tables, our own and the peer's, and whether the two agree on a type: docs/wire.md, sections 6.1 and 6.3.
#include <algorithm>

#include "lahja_capn/types.h"

namespace lahja_capn {

namespace {

constexpr std::size_t max_types = 65535;
constexpr std::size_t max_name_bytes = 1024;
constexpr std::size_t max_table_bytes = 16u << 20;
constexpr std::size_t row_bytes = 24;

[[noreturn]] void invalid(const std::string& what) {
  throw ProtocolError(GoodbyeCode::invalid_table, "the peer's id table: " + what);
}

std::string shown(std::uint64_t type_id) {
  static const char digits[] = "0123456789abcdef";
  std::string text = "0x";
  for (int shift = 60; shift >= 0; shift -= 4) text += digits[type_id >> shift & 15];
  return text;
}

void check_own(const Row& row) {
  if (row.name.size() > max_name_bytes) {
    throw LocalError("the name of " + row.name.substr(0, 100) + "... has " + std::to_string(row.name.size()) +
                     " bytes: peers accept " + std::to_string(max_name_bytes));
  }
  if (row.type_id == 0) throw LocalError("type id 0 of " + row.name + " is not one");
}

}  // namespace

const Row* Catalog::known_row(std::uint64_t type_id) const {
  const auto type = types_.find(type_id);
  if (type != types_.end()) return &type->second.type->row;
  const auto found = structs_.find(type_id);
  return found == structs_.end() ? nullptr : &rows_[found->second].row;
}

std::uint16_t Catalog::declare(const EventType& type) {
  const auto known = types_.find(type.type_id());
  if (known != types_.end() && known->second.type->row == type.row) return known->second.wire_id;
  const auto check = [this](const Row& row) {
    const Row* before = known_row(row.type_id);
    if (before == nullptr) {
      check_own(row);
    } else if (*before != row) {
      throw LocalError(row.name + " (" + shown(row.type_id) + ") is in the id table as " + before->name +
                       " with another layout or kind. What peers were told cannot change: restart the endpoint");
    }
    return before == nullptr;
  };
  std::vector<const Row*> added;
  for (const Row& row : type.reachable) {
    if (check(row)) added.push_back(&row);
  }
  check(type.row);
  if (types_.size() >= max_types || structs_.size() + added.size() > max_types) {
    throw LocalError(type.name() + " does not fit the id table: the limit is " + std::to_string(max_types) +
                     " types, and as many structs that are reachable from them");
  }
  for (const Row* row : added) {
    structs_[row->type_id] = rows_.size();
    rows_.push_back({0, *row});
  }
  const auto wire_id = static_cast<std::uint16_t>(types_.size() + 1);
  rows_.push_back({wire_id, type.row});
  types_.emplace(type.type_id(), Known{wire_id, std::make_unique<const EventType>(type)});
  return wire_id;
}

const EventType* Catalog::find(std::uint64_t type_id) const {
  const auto found = types_.find(type_id);
  return found == types_.end() ? nullptr : found->second.type.get();
}

std::uint16_t Catalog::wire_id(std::uint64_t type_id) const {
  const auto found = types_.find(type_id);
  return found == types_.end() ? std::uint16_t{0} : found->second.wire_id;
}

std::string Incompatibility::text() const {
  std::string where = type_name;
  if (struct_name != type_name) where += " through " + struct_name;
  return where + ": the " + (ordinal ? "field with ordinal " + std::to_string(*ordinal) : "kind of row") + " differs";
}

void PeerTable::add(std::uint16_t wire_id, Row row) {
  const std::uint64_t type_id = row.type_id;
  auto known = rows_.find(type_id);
  const bool is_new = known == rows_.end();
  if (is_new) {
    if (row.kind != RowKind::structure && row.kind != RowKind::opaque) {
      invalid("row \"" + row.name.substr(0, 100) + "\" is of kind " + std::to_string(static_cast<unsigned>(row.kind)) +
              ": wanted struct (0) or opaque (1)");
    }
    if (type_id == 0) invalid("row \"" + row.name.substr(0, 100) + "\" has type id 0");
    if (row.kind == RowKind::opaque && !row.layout.empty()) {
      invalid("row \"" + row.name.substr(0, 100) + "\" is opaque and has a layout of " +
              std::to_string(row.layout.size()) + " elements");
    }
    if (row.name.size() > max_name_bytes) {
      invalid("a row's name has " + std::to_string(row.name.size()) + " bytes: the limit is " +
              std::to_string(max_name_bytes));
    }
    bytes_ += row_bytes + row.name.size() + 4 * row.layout.size();
    if (bytes_ > max_table_bytes) invalid("it takes more than " + std::to_string(max_table_bytes) + " bytes");
    if (wire_id == 0 && ++structs_ > max_types) {
      invalid("more than " + std::to_string(max_types) + " structs without a wire id");
    }
    known = rows_.emplace(type_id, std::move(row)).first;
    verdicts_.clear();
  } else if (known->second != row) {
    invalid("type " + shown(type_id) + " is declared twice, differently: \"" + known->second.name.substr(0, 100) +
            "\", then \"" + row.name.substr(0, 100) + "\"");
  }
  if (wire_id == 0) return;
  const auto before = wire_ids_.find(type_id);
  if (before != wire_ids_.end()) {
    if (before->second == wire_id) return;
    invalid("type " + shown(type_id) + " has two wire ids, " + std::to_string(before->second) + " and " +
            std::to_string(wire_id));
  }
  const auto taken = by_wire_id_.find(wire_id);
  if (taken != by_wire_id_.end()) {
    invalid("wire id " + std::to_string(wire_id) + " stands for \"" + taken->second->name.substr(0, 100) +
            "\" and for \"" + known->second.name.substr(0, 100) + "\"");
  }
  wire_ids_.emplace(type_id, wire_id);
  // Elements of an unordered_map stay where they are.
  by_wire_id_.emplace(wire_id, &known->second);
}

const Row* PeerTable::find(std::uint16_t wire_id) const {
  const auto found = by_wire_id_.find(wire_id);
  return found == by_wire_id_.end() ? nullptr : found->second;
}

const Incompatibility* PeerTable::incompatibility(const EventType& type) {
  const auto cached = verdicts_.find(type.type_id());
  if (cached != verdicts_.end()) return cached->second ? &*cached->second : nullptr;
  std::optional<Incompatibility> found;
  const auto look = [&](const Row& ours) {
    const auto theirs = rows_.find(ours.type_id);
    if (found || theirs == rows_.end()) return;
    if (ours.kind != theirs->second.kind) {
      found = Incompatibility{type.name(), ours.name, std::nullopt};
      return;
    }
    const auto& layout = theirs->second.layout;
    const std::size_t common = std::min(ours.layout.size(), layout.size());
    for (std::size_t i = 0; i < common; ++i) {
      if (ours.layout[i] != layout[i]) {
        found = Incompatibility{type.name(), ours.name, i};
        return;
      }
    }
  };
  look(type.row);
  for (const Row& row : type.reachable) look(row);
  const auto& kept = verdicts_.emplace(type.type_id(), std::move(found)).first->second;
  return kept ? &*kept : nullptr;
}

}  // namespace lahja_capn
