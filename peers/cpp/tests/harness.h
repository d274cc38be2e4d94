// As much of a test framework as these tests need: TEST, CHECK, CHECK_EQUAL.
#pragma once

#include <functional>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace harness {

struct Test {
  const char* name;
  void (*run)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

struct Register {
  Register(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  throw std::runtime_error(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

template <typename Got, typename Wanted>
void check_equal(const char* file, int line, const char* expression, const Got& got, const Wanted& wanted) {
  if (got == wanted) return;
  std::ostringstream text;
  text << std::boolalpha << expression << ": wanted " << wanted << ", got " << got;
  fail(file, line, text.str());
}

// A seed for this run, printed; TEST_SEED repeats one.
unsigned seed();

}  // namespace harness

#define TEST(name)                                          \
  static void name();                                       \
  static const harness::Register register_##name(#name, name); \
  static void name()

#define CHECK(condition) \
  if (!(condition)) harness::fail(__FILE__, __LINE__, #condition)

#define CHECK_EQUAL(got, wanted) harness::check_equal(__FILE__, __LINE__, #got, got, wanted)

#define CHECK_THROWS(Exception, expression)                                   \
  do {                                                                        \
    bool thrown = false;                                                      \
    try {                                                                     \
      expression;                                                             \
    } catch (const Exception&) {                                              \
      thrown = true;                                                          \
    }                                                                         \
    if (!thrown) harness::fail(__FILE__, __LINE__, #expression " threw no " #Exception); \
  } while (false)
