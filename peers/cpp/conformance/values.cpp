#include "values.h"

#include <capnp/any.h>
#include <capnp/schema.capnp.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <stdexcept>

#include "conformance.capnp.h"
#include "lahja_capn/wire.capnp.h"

namespace conformance_program {

namespace {

using capnp::AnyPointer;
using capnp::Data;
using capnp::DynamicEnum;
using capnp::DynamicList;
using capnp::DynamicStruct;
using capnp::DynamicValue;
using capnp::Text;
namespace schema = capnp::schema;

constexpr auto no_discriminant = schema::Field::NO_DISCRIMINANT;

template <typename Bits, typename Float>
std::string float_text(Float value) {
  Bits bits;
  std::memcpy(&bits, &value, sizeof(bits));
  char text[17];
  std::snprintf(text, sizeof(text), "%0*llx", static_cast<int>(2 * sizeof(bits)), static_cast<unsigned long long>(bits));
  return text;
}

template <typename Bits, typename Float>
Float float_of(const Json& json) {
  const auto bits = static_cast<Bits>(std::stoull(json.get<std::string>(), nullptr, 16));
  Float value;
  std::memcpy(&value, &bits, sizeof(bits));
  return value;
}

std::string checked_text(Text::Reader text) {
  const std::string copy(text.begin(), text.size());
  // Serializing is what finds text that is not UTF-8.
  (void)Json(copy).dump();
  return copy;
}

Json list_json(DynamicList::Reader list);

Json value_json(capnp::Type type, DynamicValue::Reader value) {
  switch (type.which()) {
    case schema::Type::VOID: return nullptr;
    case schema::Type::BOOL: return value.as<bool>();
    case schema::Type::INT8:
    case schema::Type::INT16:
    case schema::Type::INT32: return value.as<std::int32_t>();
    case schema::Type::UINT8:
    case schema::Type::UINT16:
    case schema::Type::UINT32: return value.as<std::uint32_t>();
    case schema::Type::INT64: return std::to_string(value.as<std::int64_t>());
    case schema::Type::UINT64: return std::to_string(value.as<std::uint64_t>());
    case schema::Type::FLOAT32: return float_text<std::uint32_t>(value.as<float>());
    case schema::Type::FLOAT64: return float_text<std::uint64_t>(value.as<double>());
    case schema::Type::TEXT: return checked_text(value.as<Text>());
    case schema::Type::DATA: {
      const auto data = value.as<Data>();
      return hex(data.begin(), data.size());
    }
    case schema::Type::ENUM: {
      const auto number = value.as<DynamicEnum>();
      KJ_IF_MAYBE(enumerant, number.getEnumerant()) { return enumerant->getProto().getName().cStr(); }
      return number.getRaw();
    }
    case schema::Type::LIST: return list_json(value.as<DynamicList>());
    case schema::Type::STRUCT: return to_json(value.as<DynamicStruct>());
    case schema::Type::INTERFACE:
    case schema::Type::ANY_POINTER: break;
  }
  throw std::runtime_error("a field of a type that has no JSON form");
}

Json list_json(DynamicList::Reader list) {
  Json json = Json::array();
  const auto type = list.getSchema().getElementType();
  for (const auto element : list) json.push_back(value_json(type, element));
  return json;
}

// Everything.anything: what it holds stands in anyKind.
Json any_json(DynamicStruct::Reader parent, AnyPointer::Reader pointer) {
  const auto kind = static_cast<conformance::AnyKind>(parent.get("anyKind").as<DynamicEnum>().getRaw());
  switch (kind) {
    case conformance::AnyKind::NULL_: return {{"null", nullptr}};
    case conformance::AnyKind::TEXT: return {{"text", checked_text(pointer.getAs<Text>())}};
    case conformance::AnyKind::DATA: {
      const auto data = pointer.getAs<Data>();
      return {{"data", hex(data.begin(), data.size())}};
    }
    case conformance::AnyKind::INNER:
      return {{"inner", to_json(DynamicStruct::Reader(pointer.getAs<conformance::Inner>()))}};
    case conformance::AnyKind::U16S: {
      Json numbers = Json::array();
      for (const auto number : pointer.getAs<capnp::List<std::uint16_t>>()) numbers.push_back(number);
      return {{"u16s", numbers}};
    }
  }
  throw std::runtime_error("anyKind is unknown");
}

void build_any(const Json& json, DynamicStruct::Builder parent) {
  auto pointer = parent.get("anything").as<AnyPointer>();
  const std::string kind = json.begin().key();
  const Json& value = json.begin().value();
  parent.set("anyKind", DynamicValue::Reader(kind.c_str()));
  if (kind == "text") {
    pointer.setAs<Text>(value.get<std::string>().c_str());
  } else if (kind == "data") {
    const std::string bytes = unhex(value.get<std::string>());
    pointer.setAs<Data>(kj::arrayPtr(reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size()));
  } else if (kind == "inner") {
    from_json(value, DynamicStruct::Builder(pointer.initAs<conformance::Inner>()));
  } else if (kind == "u16s") {
    auto numbers = pointer.initAs<capnp::List<std::uint16_t>>(static_cast<capnp::uint>(value.size()));
    for (capnp::uint i = 0; i < numbers.size(); ++i) numbers.set(i, value[i].get<std::uint16_t>());
  } else if (kind != "null") {
    throw std::runtime_error("anything cannot hold \"" + kind + "\"");
  }
}

void build_list(const Json& json, DynamicList::Builder list) {
  const auto type = list.getSchema().getElementType();
  for (capnp::uint i = 0; i < list.size(); ++i) {
    const Json& value = json[i];
    switch (type.which()) {
      case schema::Type::STRUCT: from_json(value, list[i].as<DynamicStruct>()); break;
      case schema::Type::LIST:
        build_list(value, list.init(i, static_cast<capnp::uint>(value.size())).as<DynamicList>());
        break;
      case schema::Type::TEXT: {
        const auto text = value.get<std::string>();
        list.set(i, Text::Reader(text.c_str(), text.size()));
        break;
      }
      case schema::Type::DATA: {
        const auto bytes = unhex(value.get<std::string>());
        list.set(i, Data::Reader(reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size()));
        break;
      }
      case schema::Type::VOID: break;
      case schema::Type::BOOL: list.set(i, value.get<bool>()); break;
      case schema::Type::INT64: list.set(i, static_cast<std::int64_t>(std::stoll(value.get<std::string>()))); break;
      case schema::Type::UINT64: list.set(i, static_cast<std::uint64_t>(std::stoull(value.get<std::string>()))); break;
      case schema::Type::FLOAT32: list.set(i, float_of<std::uint32_t, float>(value)); break;
      case schema::Type::FLOAT64: list.set(i, float_of<std::uint64_t, double>(value)); break;
      case schema::Type::ENUM:
        list.set(i, value.is_string()
                        ? DynamicValue::Reader(value.get<std::string>().c_str())
                        : DynamicValue::Reader(DynamicEnum(type.asEnum(), value.get<std::uint16_t>())));
        break;
      default: list.set(i, static_cast<std::int64_t>(value.get<std::int64_t>()));
    }
  }
}

void build_field(capnp::StructSchema::Field field, const Json& value, DynamicStruct::Builder to) {
  const auto type = field.getType();
  switch (type.which()) {
    case schema::Type::VOID: to.set(field, capnp::VOID); break;
    case schema::Type::BOOL: to.set(field, value.get<bool>()); break;
    case schema::Type::INT64: to.set(field, static_cast<std::int64_t>(std::stoll(value.get<std::string>()))); break;
    case schema::Type::UINT64: to.set(field, static_cast<std::uint64_t>(std::stoull(value.get<std::string>()))); break;
    case schema::Type::FLOAT32: to.set(field, float_of<std::uint32_t, float>(value)); break;
    case schema::Type::FLOAT64: to.set(field, float_of<std::uint64_t, double>(value)); break;
    case schema::Type::TEXT: {
      const auto text = value.get<std::string>();
      to.set(field, Text::Reader(text.c_str(), text.size()));
      break;
    }
    case schema::Type::DATA: {
      const auto bytes = unhex(value.get<std::string>());
      to.set(field, Data::Reader(reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size()));
      break;
    }
    case schema::Type::ENUM:
      if (value.is_string()) {
        to.set(field, DynamicValue::Reader(value.get<std::string>().c_str()));
      } else {
        to.set(field, DynamicValue::Reader(DynamicEnum(type.asEnum(), value.get<std::uint16_t>())));
      }
      break;
    case schema::Type::LIST:
      build_list(value, to.init(field, static_cast<capnp::uint>(value.size())).as<DynamicList>());
      break;
    case schema::Type::STRUCT:
      if (!value.is_null()) from_json(value, to.init(field).as<DynamicStruct>());
      break;
    case schema::Type::ANY_POINTER: build_any(value, to); break;
    case schema::Type::INTERFACE: throw std::runtime_error("an interface has no JSON form");
    default: to.set(field, value.get<std::int64_t>());
  }
}

const std::map<std::string, const lahja_capn::EventType*>& types() {
  static const std::map<std::string, const lahja_capn::EventType*> all = {
      {"Everything", &lahja_capn::event_type<conformance::Everything>()},
      {"Count", &lahja_capn::event_type<conformance::Count>()},
      {"Blob", &lahja_capn::event_type<conformance::Blob>()},
      {"Late", &lahja_capn::event_type<conformance::Late>()},
      {"Evolving", &lahja_capn::event_type<conformance::Evolving>()},
      {"Ask", &lahja_capn::event_type<conformance::Ask>()},
      {"Answer", &lahja_capn::event_type<conformance::Answer>()},
  };
  return all;
}

}  // namespace

Json to_json(DynamicStruct::Reader value) {
  Json json = Json::object();
  const auto type = value.getSchema();
  const auto node = type.getProto().getStruct();
  const auto active = value.which();
  for (const auto field : type.getFields()) {
    const auto proto = field.getProto();
    if (proto.getDiscriminantValue() != no_discriminant) {
      bool is_active = false;
      KJ_IF_MAYBE(member, active) { is_active = *member == field; }
      if (!is_active) continue;
    }
    const std::string name = proto.getName().cStr();
    if (name == "anything") {
      json[name] = any_json(value, value.get(field).as<AnyPointer>());
    } else if (name == "again" && !value.has(field)) {
      json[name] = nullptr;
    } else {
      json[name] = value_json(field.getType(), value.get(field));
    }
  }
  if (node.getDiscriminantCount() > 0 && active == nullptr) {
    // A member of a later schema: the discriminant lies where all of them have it.
    const auto data = value.as<capnp::AnyStruct>().getDataSection();
    const std::size_t at = node.getDiscriminantOffset() * 2;
    json["unknown"] = at + 2 <= data.size() ? lahja_capn::load16(data.begin() + at) : 0;
  }
  return json;
}

void from_json(const Json& json, DynamicStruct::Builder value) {
  const auto type = value.getSchema();
  for (const auto& [name, field_json] : json.items()) {
    KJ_IF_MAYBE(field, type.findFieldByName(name.c_str())) {
      build_field(*field, field_json, value);
    } else {
      throw std::runtime_error(std::string(type.getProto().getDisplayName().cStr()) + " has no field " + name);
    }
  }
}

capnp::StructSchema schema_named(const std::string& name) {
  if (name == "Control") return capnp::Schema::from<lahja_capn::wire::Control>();
  if (name == "Opaque") return capnp::Schema::from<lahja_capn::wire::Opaque>();
  if (name == "Everything") return capnp::Schema::from<conformance::Everything>();
  if (name == "Inner") return capnp::Schema::from<conformance::Inner>();
  if (name == "Count") return capnp::Schema::from<conformance::Count>();
  if (name == "Blob") return capnp::Schema::from<conformance::Blob>();
  if (name == "Late") return capnp::Schema::from<conformance::Late>();
  if (name == "Evolving") return capnp::Schema::from<conformance::Evolving>();
  if (name == "Ask") return capnp::Schema::from<conformance::Ask>();
  if (name == "Answer") return capnp::Schema::from<conformance::Answer>();
  throw std::runtime_error("there is no type \"" + name + "\"");
}

const lahja_capn::EventType& type_named(const std::string& name) {
  const auto found = types().find(name);
  if (found == types().end()) throw std::runtime_error("there is no event type \"" + name + "\"");
  return *found->second;
}

std::string name_of(std::uint64_t type_id) {
  for (const auto& [name, type] : types()) {
    if (type->type_id() == type_id) return name;
  }
  return "";
}

std::string hex(const kj::byte* bytes, std::size_t count) {
  static const char digits[] = "0123456789abcdef";
  std::string text(2 * count, '0');
  for (std::size_t i = 0; i < count; ++i) {
    text[2 * i] = digits[bytes[i] >> 4];
    text[2 * i + 1] = digits[bytes[i] & 15];
  }
  return text;
}

std::string unhex(const std::string& digits) {
  const auto value = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    throw std::runtime_error("not lower-case hexadecimal");
  };
  if (digits.size() % 2 != 0) throw std::runtime_error("an odd number of hexadecimal digits");
  std::string bytes(digits.size() / 2, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<char>(value(digits[2 * i]) << 4 | value(digits[2 * i + 1]));
  }
  return bytes;
}

}  // namespace conformance_program
