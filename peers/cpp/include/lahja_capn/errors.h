// What can go wrong, and the words of the wire format for it.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace lahja_capn {

// Why a connection ended, as in wire.capnp. A peer may send a number that is not listed here.
enum class GoodbyeCode : std::uint16_t {
  shutdown,
  protocol_error,
  unsupported_version,
  invalid_name,
  wrong_name,
  name_in_use,
  duplicate,
  replaced,
  handshake_timeout,
  keepalive_timeout,
  too_slow,
  frame_too_large,
  credit_exceeded,
  invalid_table,
  unknown_id,
  unknown_control,
  unknown_correlation,
  internal_error,
  not_permitted,
};

// Why a request failed, as in wire.capnp. A peer may send a number that is not listed here.
enum class FailedCode : std::uint16_t {
  handler_raised,
  no_handler,
  unknown_type,
  incompatible_type,
  unreadable,
  overloaded,
};

// The name in wire.capnp ("protocolError"), or the number if it is unknown.
std::string to_string(GoodbyeCode code);
std::string to_string(FailedCode code);

// Everything that this library throws at its user.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The caller's mistake: nothing was sent.
class LocalError : public Error {
 public:
  using Error::Error;
};

// A socket could not be opened, bound or connected.
class IoError : public Error {
 public:
  using Error::Error;
};

// The peer broke a rule of docs/wire.md. It never leaves a Session: it becomes the goodbye.
class ProtocolError : public Error {
 public:
  ProtocolError(GoodbyeCode code, const std::string& text) : Error(text), code_(code) {}
  GoodbyeCode code() const { return code_; }

 private:
  GoodbyeCode code_;
};

// For the handler of a request: thrown, it becomes `failed` with this type name and text.
class RequestError : public Error {
 public:
  RequestError(std::string type_name, const std::string& text)
      : Error(text), type_name_(std::move(type_name)) {}
  const std::string& type_name() const { return type_name_; }

 private:
  std::string type_name_;
};

}  // namespace lahja_capn
