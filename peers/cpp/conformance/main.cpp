// The conformance program: what tests/vectors and tests/matrix run in every language.
#include <signal.h>

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <stdexcept>

#include "peer.h"
#include "vectors.h"

namespace {

const char usage[] =
    "conformance vectors DIR\n"
    "conformance peer --name NAME (--serve PATH | --connect PATH --expect NAME) [--event-credit BYTES]\n"
    "                 [--request-credit BYTES] [--frame-limit BYTES] [--keepalive-ms MS]\n"
    "                 [--handshake-ms MS]\n";

struct BadUsage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::uint64_t number(const std::string& option, const std::string& text) {
  const bool digits = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || text.size() > 20) throw BadUsage(option + " wants a number, got \"" + text + "\"");
  return std::stoull(text);
}

conformance_program::PeerOptions peer_options(int argc, char** argv) {
  conformance_program::PeerOptions options;
  for (int i = 2; i < argc; i += 2) {
    const std::string option = argv[i];
    if (i + 1 == argc) throw BadUsage(option + " wants a value");
    const std::string value = argv[i + 1];
    if (option == "--name") {
      options.config.name = value;
    } else if (option == "--serve") {
      options.serve = value;
    } else if (option == "--connect") {
      options.connect = value;
    } else if (option == "--expect") {
      options.expect = value;
    } else if (option == "--event-credit") {
      options.config.event_credit = number(option, value);
    } else if (option == "--request-credit") {
      options.config.request_credit = number(option, value);
    } else if (option == "--frame-limit") {
      const auto limit = number(option, value);
      if (limit > lahja_capn::max_frame_limit) throw BadUsage("--frame-limit: 2147483640 is the largest");
      options.config.frame_limit = static_cast<std::uint32_t>(limit);
    } else if (option == "--keepalive-ms") {
      options.config.keepalive = std::chrono::milliseconds(number(option, value));
    } else if (option == "--handshake-ms") {
      options.config.handshake_timeout = std::chrono::milliseconds(number(option, value));
    } else {
      throw BadUsage("there is no option " + option);
    }
  }
  if (options.config.name.empty()) throw BadUsage("--name is missing");
  if (options.serve.empty() == options.connect.empty()) throw BadUsage("wanted one of --serve and --connect");
  if (!options.connect.empty() && options.expect.empty()) throw BadUsage("--connect needs --expect NAME");
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  // Whoever reads our lines may be gone before us; that is not worth dying of.
  ::signal(SIGPIPE, SIG_IGN);
  try {
    if (argc == 3 && std::strcmp(argv[1], "vectors") == 0) return conformance_program::run_vectors(argv[2]);
    if (argc < 2 || std::strcmp(argv[1], "peer") != 0) throw BadUsage("wanted `vectors DIR` or `peer …`");
    return conformance_program::Peer(peer_options(argc, argv)).run();
  } catch (const BadUsage& error) {
    std::cerr << "conformance: " << error.what() << "\n" << usage;
    return 2;
  } catch (const lahja_capn::LocalError& error) {
    std::cerr << "conformance: " << error.what() << "\n";
    return 2;
  } catch (const kj::Exception& error) {
    std::cerr << "conformance: " << error.getDescription().cStr() << "\n";
  } catch (const std::exception& error) {
    std::cerr << "conformance: " << error.what() << "\n";
  }
  return 1;
}
