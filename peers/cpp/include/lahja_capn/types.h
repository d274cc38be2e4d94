// Event types, their rows and layouts: docs/wire.md, section 6.
#pragma once

#include <capnp/schema.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "lahja_capn/errors.h"

namespace lahja_capn {

enum class RowKind : std::uint16_t { structure = 0, opaque = 1 };

// What a peer is told about one struct.
struct Row {
  std::uint64_t type_id = 0;
  RowKind kind = RowKind::structure;
  // For people: never compared between two endpoints.
  std::string name;
  // Element k is the hash of the field with ordinal k. Empty: not checked.
  std::vector<std::uint32_t> layout;

  friend bool operator==(const Row& a, const Row& b) {
    return a.type_id == b.type_id && a.kind == b.kind && a.name == b.name && a.layout == b.layout;
  }
  friend bool operator!=(const Row& a, const Row& b) { return !(a == b); }
};

// An event, request or response type as this program was compiled with it.
struct EventType {
  Row row;
  // The structs that are reachable from it, itself excepted: a peer compares their layouts too.
  std::vector<Row> reachable;

  std::uint64_t type_id() const { return row.type_id; }
  const std::string& name() const { return row.name; }
};

// Finds rows and layouts in the schema that the generated code carries: nothing has to be generated for it.
EventType describe(capnp::StructSchema schema);

// A type whose bytes mean something only to its users; on the wire it is Opaque of wire.capnp.
EventType opaque_type(std::uint64_t type_id, std::string name);

// The description of a generated struct, made once.
template <typename T>
const EventType& event_type() {
  static const EventType type = describe(capnp::Schema::from<T>());
  return type;
}

// The canonical texts that layouts are hashes of, by ordinal; and the hash. For tests and for people.
std::vector<std::string> layout_texts(capnp::StructSchema schema);
std::uint32_t fnv1a_32(const std::string& text);

// What one endpoint declares, knows and wants; shared by its sessions. Rows are only ever appended.
class Catalog {
 public:
  struct Declared {
    std::uint16_t wire_id;
    Row row;
  };

  // Adds the type, and what is reachable from it, if it is new. Returns its wire id.
  std::uint16_t declare(const EventType& type);
  const std::vector<Declared>& rows() const { return rows_; }

  // The type if it is declared here, else nullptr.
  const EventType* find(std::uint64_t type_id) const;
  std::uint16_t wire_id(std::uint64_t type_id) const;

  // The sets that change while the endpoint runs.
  std::unordered_set<std::uint64_t> events_wanted;
  std::unordered_set<std::uint64_t> requests_served;
  bool all_wanted = false;

  bool wants_event(std::uint64_t type_id) const { return all_wanted || events_wanted.count(type_id) > 0; }
  bool serves(std::uint64_t type_id) const { return requests_served.count(type_id) > 0; }

 private:
  struct Known {
    std::uint16_t wire_id;
    std::unique_ptr<const EventType> type;
  };
  const Row* known_row(std::uint64_t type_id) const;

  std::vector<Declared> rows_;
  std::unordered_map<std::uint64_t, Known> types_;
  std::unordered_map<std::uint64_t, std::size_t> structs_;
};

// Why a type cannot pass between two endpoints.
struct Incompatibility {
  std::string type_name;
  std::string struct_name;
  // The first field that differs; none if the kinds do.
  std::optional<std::size_t> ordinal;

  std::string text() const;
};

// The id table of one peer, as it declared it.
class PeerTable {
 public:
  // Throws ProtocolError (invalid_table) if the table contradicts itself or exceeds a limit.
  void add(std::uint16_t wire_id, Row row);

  const Row* find(std::uint16_t wire_id) const;
  bool declares(std::uint64_t type_id) const { return wire_ids_.count(type_id) > 0; }

  // nullptr if the type may pass. The result is valid until the next add().
  const Incompatibility* incompatibility(const EventType& type);

 private:
  std::unordered_map<std::uint64_t, Row> rows_;
  std::unordered_map<std::uint64_t, std::uint16_t> wire_ids_;
  std::unordered_map<std::uint16_t, const Row*> by_wire_id_;
  std::size_t structs_ = 0;
  std::size_t bytes_ = 0;
  // Emptied whenever a row is new: any verdict may depend on it.
  std::unordered_map<std::uint64_t, std::optional<Incompatibility>> verdicts_;
};

}  // namespace lahja_capn
