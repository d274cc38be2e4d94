// A guest on somebody's bus: prints what is counted, tells everybody that it saw it, asks once, and answers.
//   bin/example --connect PATH --expect NAME --name NAME
#include <iostream>
#include <map>
#include <string>

#include "conformance.capnp.h"
#include "lahja_capn/endpoint.h"

using conformance::Answer;
using conformance::Ask;
using conformance::Count;
using conformance::Evolving;
using lahja_capn::Endpoint;
using lahja_capn::Origin;

namespace {

void run(const std::string& path, const std::string& expected, const std::string& name) {
  lahja_capn::Config config;
  config.name = name;
  Endpoint endpoint(config);

  const auto counts = endpoint.subscribe<Count>([&](Count::Reader count, const Origin&) {
    const auto number = count.getNumber();
    std::cout << "Count " << number << std::endl;
    endpoint.broadcast<Evolving>([&](Evolving::Builder event) {
      event.setNumber(static_cast<std::uint32_t>(number));
      event.setText(name + " saw " + std::to_string(number));
    });
  });

  const auto answers = endpoint.serve_requests<Ask, Answer>([](Ask::Reader ask, Answer::Builder answer) {
    std::cout << "asked for twice " << ask.getNumber() << std::endl;
    answer.setNumber(2 * ask.getNumber());
    answer.setText("twice " + std::to_string(ask.getNumber()));
  });

  bool asked = false;
  endpoint.on_peer_subscription([&](const std::string&, std::uint64_t type_id, bool on) {
    // A request needs somebody who answers it.
    if (asked || !on || type_id != lahja_capn::event_type<Ask>().type_id()) return;
    asked = true;
    endpoint.request<Ask, Answer>(
        [](Ask::Builder ask) { ask.setNumber(21); }, std::chrono::seconds(10),
        [](lahja_capn::Outcome<Answer>&& outcome) {
          if (outcome) {
            std::cout << "answered: " << outcome.value().getText().cStr() << std::endl;
          } else {
            std::cout << outcome.text() << std::endl;
          }
        });
  });

  endpoint.on_down([&](const std::string& peer, const lahja_capn::Ended& why) {
    std::cout << peer << " is gone: " << (why.code ? "goodbye " + to_string(*why.code) : why.text) << std::endl;
    endpoint.stop();
  });
  endpoint.on_refused([&](const lahja_capn::Ended& why) {
    std::cerr << "refused: " << why.text << std::endl;
    endpoint.stop();
  });
  endpoint.connect(path, expected);
  endpoint.run();
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, std::string> options;
  for (int i = 1; i + 1 < argc; i += 2) options[argv[i]] = argv[i + 1];
  if (argc != 7 || options["--connect"].empty() || options["--expect"].empty() || options["--name"].empty()) {
    std::cerr << "usage: example --connect PATH --expect NAME --name NAME\n";
    return 2;
  }
  try {
    run(options["--connect"], options["--expect"], options["--name"]);
  } catch (const lahja_capn::Error& error) {
    std::cerr << "example: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
