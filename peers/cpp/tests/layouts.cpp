// Layouts by reflection against docs/wire.md, and against what `lahja-capn table` makes of the same schema.
#include <algorithm>
#include <fstream>
#include <map>
#include <string>

#include "conformance.capnp.h"
#include "harness.h"
#include "lahja_capn/types.h"
#include "lahja_capn/wire.capnp.h"
#include "layouts.capnp.h"
#include "table.h"

namespace {

using lahja_capn::EventType;
using lahja_capn::Row;

struct Line {
  std::uint32_t hash;
  std::string text;
};

// The blocks ```layout NAME of docs/wire.md.
std::map<std::string, std::vector<Line>> documented() {
  std::ifstream page(DOCS "/wire.md");
  std::map<std::string, std::vector<Line>> found;
  std::string name;
  for (std::string line; std::getline(page, line);) {
    const std::string start = "```layout ";
    if (line.rfind(start, 0) == 0) {
      name = line.substr(start.size());
    } else if (line == "```") {
      name.clear();
    } else if (!name.empty()) {
      std::istringstream words(line);
      std::string ordinal;
      std::string hash;
      std::string text;
      words >> ordinal >> hash >> text;
      found[name].push_back({static_cast<std::uint32_t>(std::stoul(hash, nullptr, 16)), text});
    }
  }
  return found;
}

void compare(const std::string& name, capnp::StructSchema schema) {
  const auto lines = documented()[name];
  CHECK(!lines.empty());
  const auto texts = lahja_capn::layout_texts(schema);
  const auto layout = lahja_capn::describe(schema).row.layout;
  CHECK_EQUAL(texts.size(), lines.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    CHECK_EQUAL(texts[i], lines[i].text);
    CHECK_EQUAL(layout[i], lines[i].hash);
  }
}

void compare(const EventType& type, const conformance_table::TableRow& wanted) {
  CHECK_EQUAL(type.row.type_id, wanted.typeId);
  CHECK_EQUAL(type.row.name, std::string(wanted.name));
  CHECK(type.row.layout == std::vector<std::uint32_t>(wanted.layout, wanted.layout + wanted.layoutSize));
  std::vector<std::uint64_t> reaches;
  for (const Row& row : type.reachable) reaches.push_back(row.type_id);
  CHECK(reaches == std::vector<std::uint64_t>(wanted.reaches, wanted.reaches + wanted.reachesSize));
}

}  // namespace

TEST(the_layouts_of_docs_wire_md_come_out) {
  compare("Mark", capnp::Schema::from<layouts::Mark>());
  compare("Outer.Inner", capnp::Schema::from<layouts::Outer<>::Inner<>>());
  compare("Pair", capnp::Schema::from<layouts::Pair<>>());
  compare("Corners", capnp::Schema::from<layouts::Corners>());
}

TEST(the_worked_example_comes_out) {
  const auto layout = lahja_capn::event_type<layouts::Tick>().row.layout;
  CHECK((layout == std::vector<std::uint32_t>{0xe591d0f9, 0x19e37638, 0x8945600e, 0xb5ca3fba}));
}

TEST(structs_are_reached_through_arguments_of_generic_types) {
  const auto& type = lahja_capn::event_type<layouts::Corners>();
  const auto has = [&](std::uint64_t id) {
    return std::any_of(type.reachable.begin(), type.reachable.end(), [=](const Row& row) { return row.type_id == id; });
  };
  CHECK_EQUAL(type.reachable.size(), std::size_t{4});
  CHECK(has(0x9b2c3d4e5f607182));
  CHECK(has(0xbd4e5f60718293a4));
  CHECK(has(0xdf60718293a4b5c6));
  CHECK(has(0xe0718293a4b5c6d7));
}

TEST(rows_equal_those_of_the_table_command) {
  compare(lahja_capn::event_type<conformance::Everything>(), conformance_table::everythingRow);
  compare(lahja_capn::event_type<conformance::Count>(), conformance_table::countRow);
  compare(lahja_capn::event_type<conformance::Blob>(), conformance_table::blobRow);
  compare(lahja_capn::event_type<conformance::Late>(), conformance_table::lateRow);
  compare(lahja_capn::event_type<conformance::Evolving>(), conformance_table::evolvingRow);
  compare(lahja_capn::event_type<conformance::Ask>(), conformance_table::askRow);
  compare(lahja_capn::event_type<conformance::Answer>(), conformance_table::answerRow);
}

TEST(a_namespace_annotation_changes_no_id) {
  // What `capnp compile -ocapnp` says of the schema as it stands in capnp/.
  CHECK_EQUAL(capnp::typeId<lahja_capn::wire::Control>(), std::uint64_t{0xba444e8aa94ac4e9});
}
