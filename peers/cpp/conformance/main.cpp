#include <iostream>

#include "vectors.h"

int main(int, char** argv) {
  return conformance_program::run_vectors(argv[2]);
}
