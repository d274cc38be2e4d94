// `conformance vectors DIR`: runs every vector. tests/vectors/README.md is the norm.
#pragma once

#include <string>

#include "values.h"

namespace conformance_program {

// Reads DIR/FOLDER/NAME.json and the bytes that belong to it.
struct Vector {
  std::string folder;
  std::string name;
  Json facts;
  std::string bytes;
};

// Both throw std::exception with what differs.
void run_message_vector(const Vector& vector);
void run_value_vector(const Vector& vector);
void run_frame_vector(const Vector& vector);
// A conversation or refusal. step: how many bytes arrive at a time; 0: each `send` in one piece.
void run_conversation(const Vector& vector, std::size_t step);

// Prints a line per failure, then the counts. 0 if none failed and there was one.
int run_vectors(const std::string& folder);

// Throws with both values if they differ.
void expect_equal(const std::string& what, const Json& got, const Json& wanted);
[[noreturn]] void fail(const std::string& what);

}  // namespace conformance_program
