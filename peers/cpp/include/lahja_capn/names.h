// Names of endpoints: docs/wire.md, section 13.
#pragma once

#include <string>

namespace lahja_capn {

inline constexpr const char* name_pattern = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}";

inline bool is_valid_name(const std::string& name) {
  const auto alphanumeric = [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
  };
  if (name.empty() || name.size() > 100 || !alphanumeric(name[0])) return false;
  for (const char c : name) {
    if (!alphanumeric(c) && c != '.' && c != '_' && c != '-') return false;
  }
  return true;
}

}  // namespace lahja_capn
