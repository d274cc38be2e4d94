// Command conformance runs the vectors of the wire format, or is one end of a connection: see tests/vectors/README.md
// and peers/README.md at the top of the repository.
package main

import (
	"fmt"
	"os"

	"lahja-capn.example/peer/conformance"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "vectors" {
		passed, failed, err := conformance.RunVectors(os.Args[2], os.Stdout)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Printf("%d passed, %d failed\n", passed, failed)
		if failed > 0 {
			os.Exit(1)
		}
		return
	}
	os.Exit(2)
}
