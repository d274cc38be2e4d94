// Cap'n Proto values to the JSON forms of tests/vectors/README.md and back, by reflection.
#pragma once

#include <capnp/dynamic.h>

#include <nlohmann/json.hpp>
#include <string>

#include "lahja_capn/endpoint.h"

namespace conformance_program {

using Json = nlohmann::json;

// Throws kj::Exception, or std::runtime_error, if a field cannot be read.
Json to_json(capnp::DynamicStruct::Reader value);
// Fields that `json` does not have keep their default.
void from_json(const Json& json, capnp::DynamicStruct::Builder value);

// The structs of conformance.capnp by name; of wire.capnp it knows Control.
capnp::StructSchema schema_named(const std::string& name);
const lahja_capn::EventType& type_named(const std::string& name);
// The name in conformance.capnp, or "" if it is none.
std::string name_of(std::uint64_t type_id);

std::string hex(const kj::byte* bytes, std::size_t count);
std::string unhex(const std::string& digits);

}  // namespace conformance_program
