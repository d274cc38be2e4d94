// Layouts by reflection: docs/wire.md, section 6.2.
#include <capnp/any.h>
#include <capnp/message.h>
#include <capnp/schema.capnp.h>

#include <cstring>
#include <functional>
#include <map>

#include "lahja_capn/types.h"

namespace lahja_capn {

namespace {

namespace schema = capnp::schema;

std::string hex(std::uint64_t value, int digits) {
  static const char characters[] = "0123456789abcdef";
  std::string text(static_cast<std::size_t>(digits), '0');
  for (int i = digits - 1; i >= 0; --i, value >>= 4) text[static_cast<std::size_t>(i)] = characters[value & 15];
  return text;
}

std::string hex(const kj::byte* bytes, std::size_t count) {
  std::string text;
  for (std::size_t i = 0; i < count; ++i) text += hex(bytes[i], 2);
  return text;
}

std::string type_text(schema::Type::Reader type);

std::string brand_text(schema::Brand::Reader brand) {
  std::string text;
  for (const auto scope : brand.getScopes()) {
    std::string arguments;
    if (scope.isInherit()) {
      arguments = "inherit";
    } else {
      for (const auto binding : scope.getBind()) {
        if (!arguments.empty()) arguments += ',';
        arguments += binding.isType() ? type_text(binding.getType()) : "anypointer";
      }
    }
    text += ";" + hex(scope.getScopeId(), 16) + "[" + arguments + "]";
  }
  return text;
}

std::string any_pointer_text(schema::Type::AnyPointer::Reader any) {
  if (any.isParameter()) {
    const auto parameter = any.getParameter();
    return "param(" + hex(parameter.getScopeId(), 16) + "," + std::to_string(parameter.getParameterIndex()) + ")";
  }
  if (any.isUnconstrained()) {
    if (any.getUnconstrained().isStruct()) return "anystruct";
    if (any.getUnconstrained().isList()) return "anylist";
  }
  return "anypointer";
}

std::string type_text(schema::Type::Reader type) {
  switch (type.which()) {
    case schema::Type::VOID: return "void";
    case schema::Type::BOOL: return "bool";
    case schema::Type::INT8: return "int8";
    case schema::Type::INT16: return "int16";
    case schema::Type::INT32: return "int32";
    case schema::Type::INT64: return "int64";
    case schema::Type::UINT8: return "uint8";
    case schema::Type::UINT16: return "uint16";
    case schema::Type::UINT32: return "uint32";
    case schema::Type::UINT64: return "uint64";
    case schema::Type::FLOAT32: return "float32";
    case schema::Type::FLOAT64: return "float64";
    case schema::Type::TEXT: return "text";
    case schema::Type::DATA: return "data";
    case schema::Type::LIST: return "list(" + type_text(type.getList().getElementType()) + ")";
    case schema::Type::ENUM: return "enum(" + hex(type.getEnum().getTypeId(), 16) + ")";
    case schema::Type::STRUCT:
      return "struct(" + hex(type.getStruct().getTypeId(), 16) + brand_text(type.getStruct().getBrand()) + ")";
    case schema::Type::INTERFACE:
      return "interface(" + hex(type.getInterface().getTypeId(), 16) + brand_text(type.getInterface().getBrand()) + ")";
    case schema::Type::ANY_POINTER: return any_pointer_text(type.getAnyPointer());
  }
  throw LocalError("a field of a type that this library does not know");
}

// The one segment of a message whose root is a copy of the value.
std::string copied(capnp::AnyPointer::Reader value) {
  // One segment must hold it, or there would be far pointers in it.
  const auto words = static_cast<capnp::uint>(value.targetSize().wordCount) + 1;
  capnp::MallocMessageBuilder message(words);
  message.getRoot<capnp::AnyPointer>().set(value);
  const auto segments = message.getSegmentsForOutput();
  if (segments.size() != 1) throw LocalError("a default value did not fit the segment made for it");
  const auto bytes = segments[0].asBytes();
  return hex(bytes.begin(), bytes.size());
}

template <typename Bits, typename Float>
Bits bits_of(Float value) {
  Bits bits;
  static_assert(sizeof(bits) == sizeof(value));
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

std::string default_text(schema::Field::Slot::Reader slot) {
  const auto value = slot.getDefaultValue();
  const bool explicitly = slot.getHadExplicitDefault();
  switch (value.which()) {
    case schema::Value::VOID: return "";
    case schema::Value::BOOL: return value.getBool() ? "1" : "0";
    case schema::Value::INT8: return std::to_string(value.getInt8());
    case schema::Value::INT16: return std::to_string(value.getInt16());
    case schema::Value::INT32: return std::to_string(value.getInt32());
    case schema::Value::INT64: return std::to_string(value.getInt64());
    case schema::Value::UINT8: return std::to_string(value.getUint8());
    case schema::Value::UINT16: return std::to_string(value.getUint16());
    case schema::Value::UINT32: return std::to_string(value.getUint32());
    case schema::Value::UINT64: return std::to_string(value.getUint64());
    case schema::Value::ENUM: return std::to_string(value.getEnum());
    case schema::Value::FLOAT32: return hex(bits_of<std::uint32_t>(value.getFloat32()), 8);
    case schema::Value::FLOAT64: return hex(bits_of<std::uint64_t>(value.getFloat64()), 16);
    case schema::Value::TEXT: return hex(value.getText().asBytes().begin(), value.getText().size());
    case schema::Value::DATA: return hex(value.getData().begin(), value.getData().size());
    case schema::Value::LIST: return explicitly ? copied(value.getList()) : "";
    case schema::Value::STRUCT: return explicitly ? copied(value.getStruct()) : "";
    case schema::Value::ANY_POINTER: return explicitly ? copied(value.getAnyPointer()) : "";
    case schema::Value::INTERFACE: return "";
  }
  throw LocalError("a default value of a type that this library does not know");
}

void collect_texts(capnp::StructSchema from, const std::string& enclosing, std::map<unsigned, std::string>& texts) {
  const auto node = from.getProto().getStruct();
  for (const auto field : from.getFields()) {
    const auto proto = field.getProto();
    std::string unions = enclosing;
    const auto value = proto.getDiscriminantValue();
    if (value != schema::Field::NO_DISCRIMINANT && value != 0) {
      unions += "|" + std::to_string(node.getDiscriminantOffset()) + ":" + std::to_string(value);
    }
    const auto ordinal = proto.getOrdinal();
    if (proto.isGroup()) {
      const auto group = field.getType().asStruct();
      if (ordinal.isExplicit()) {
        texts[ordinal.getExplicit()] =
            "union@" + std::to_string(group.getProto().getStruct().getDiscriminantOffset());
      }
      collect_texts(group, unions, texts);
    } else {
      const auto slot = proto.getSlot();
      texts[ordinal.getExplicit()] =
          type_text(slot.getType()) + "@" + std::to_string(slot.getOffset()) + "=" + default_text(slot) + unions;
    }
  }
}

Row row_of(capnp::StructSchema from) {
  Row row;
  row.type_id = from.getProto().getId();
  row.name = from.getProto().getDisplayName().cStr();
  for (const std::string& text : layout_texts(from)) row.layout.push_back(fnv1a_32(text));
  return row;
}

using Found = std::function<void(capnp::StructSchema)>;

// Calls `found` for every struct that a type leads to directly, arguments of generic types included. `type` has the
// parameters filled in, `proto` names the scopes at which arguments were given.
void structs_of(capnp::Type type, schema::Type::Reader proto, bool argument, const Found& found) {
  while (type.isList() && proto.isList()) {
    type = type.asList().getElementType();
    proto = proto.getList().getElementType();
  }
  // A parameter: what it stands for was seen where it was given.
  while (type.isList()) type = type.asList().getElementType();
  if (type.isInterface() && !argument) {
    throw LocalError("an event cannot hold capabilities: a field is of an interface type");
  }
  if (!type.isStruct()) return;
  const auto target = type.asStruct();
  found(target);
  if (!proto.isStruct()) return;
  for (const auto scope : proto.getStruct().getBrand().getScopes()) {
    if (!scope.isBind()) continue;
    const auto given = target.getBrandArgumentsAtScope(scope.getScopeId());
    capnp::uint index = 0;
    for (const auto binding : scope.getBind()) {
      if (binding.isType()) structs_of(given[index], binding.getType(), true, found);
      ++index;
    }
  }
}

class Reachable {
 public:
  explicit Reachable(std::uint64_t self) { seen_[self]; }

  void visit(capnp::StructSchema from) {
    for (const auto field : from.getFields()) {
      if (field.getProto().isGroup()) {
        visit(field.getType().asStruct());
      } else {
        structs_of(field.getType(), field.getProto().getSlot().getType(), false,
                   [this](capnp::StructSchema target) { add(target); });
      }
    }
  }
  std::vector<Row> rows;

 private:
  void add(capnp::StructSchema target) {
    // The same struct with other arguments has the same row, but leads elsewhere.
    auto& brands = seen_[target.getProto().getId()];
    for (const auto& known : brands) {
      if (known == target) return;
    }
    if (brands.empty()) rows.push_back(row_of(target));
    brands.push_back(target);
    visit(target);
  }

  std::map<std::uint64_t, std::vector<capnp::StructSchema>> seen_;
};

}  // namespace

std::uint32_t fnv1a_32(const std::string& text) {
  std::uint32_t hash = 0x811c9dc5u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x01000193u;
  return hash;
}

std::vector<std::string> layout_texts(capnp::StructSchema from) {
  std::map<unsigned, std::string> texts;
  collect_texts(from, "", texts);
  std::vector<std::string> ordered;
  for (auto& [ordinal, text] : texts) ordered.push_back(std::move(text));
  return ordered;
}

EventType describe(capnp::StructSchema from) {
  EventType type;
  type.row = row_of(from);
  Reachable reachable(type.row.type_id);
  reachable.visit(from);
  for (Row& row : reachable.rows) {
    if (row.type_id != type.row.type_id) type.reachable.push_back(std::move(row));
  }
  return type;
}

EventType opaque_type(std::uint64_t type_id, std::string name) {
  EventType type;
  type.row.type_id = type_id;
  type.row.kind = RowKind::opaque;
  type.row.name = std::move(name);
  return type;
}

}  // namespace lahja_capn
