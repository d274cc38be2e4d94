// Command conformance runs the vectors of the wire format, or is one end of a connection that lines of JSON on standard
// input tell what to do: tests/vectors/README.md and peers/README.md of the repository describe both.
package main

import (
	"os"

	"lahja-capn.example/peer/conformance"
)

func main() { os.Exit(conformance.Run()) }
