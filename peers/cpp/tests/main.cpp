// Runs all tests, or those whose names contain the first argument.
#include <signal.h>

#include <cstdlib>
#include <random>

#include <kj/exception.h>

#include "harness.h"

unsigned harness::seed() {
  static const unsigned value = [] {
    const char* given = std::getenv("TEST_SEED");
    const unsigned chosen = given != nullptr ? static_cast<unsigned>(std::stoul(given)) : std::random_device()();
    std::cout << "TEST_SEED=" << chosen << std::endl;
    return chosen;
  }();
  return value;
}

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  const std::string wanted = argc > 1 ? argv[1] : "";
  int passed = 0;
  int failed = 0;
  for (const auto& test : harness::tests()) {
    if (std::string(test.name).find(wanted) == std::string::npos) continue;
    std::string problem;
    try {
      test.run();
    } catch (const kj::Exception& error) {
      problem = error.getDescription().cStr();
    } catch (const std::exception& error) {
      problem = error.what();
    }
    if (problem.empty()) {
      ++passed;
    } else {
      ++failed;
      std::cout << "FAILED " << test.name << ": " << problem << std::endl;
    }
  }
  std::cout << passed << " tests passed, " << failed << " failed" << std::endl;
  return passed > 0 && failed == 0 ? 0 : 1;
}
