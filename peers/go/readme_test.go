package peer_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	peer "lahja-capn.example/peer"
	. "lahja-capn.example/peer/conformance"
	"lahja-capn.example/peer/conformance/events"
)

// path stands for the one of README.md.
var path string

func TestTheExampleOfTheReadmeRuns(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	ok(t, err)
	source, err := os.ReadFile("readme_test.go")
	ok(t, err)
	_, code, _ := strings.Cut(string(source), "// --- as in README.md\n\n")
	code = strings.Replace(code, `path); err`, `"/run/bus/srv.sock"); err`, 1)
	if !strings.Contains(string(readme), code) {
		t.Fatal("README.md shows other code than this file has")
	}
	s := join(t, "srv", nil)
	path = place(t)
	ok(t, s.Listen(path))
	received := subscribe(t, s, Count)
	ctx, cancel := context.WithCancel(within(t))
	result := make(chan error)
	go func() { result <- run(ctx) }()
	if got := next(t, received); got != 7 {
		t.Errorf("got %d", got)
	}
	cancel()
	if err := <-result; err != context.Canceled {
		t.Errorf("got %v", err)
	}
}

// --- as in README.md

func run(ctx context.Context) error {
	endpoint, err := peer.New(peer.Config{Name: "meter"})
	if err != nil {
		return err
	}
	defer endpoint.Close(ctx)
	counts, err := endpoint.Subscribe(Count)
	if err != nil {
		return err
	}
	if err := endpoint.Connect(ctx, "srv", path); err != nil { // or Listen("/run/bus/meter.sock")
		return err
	}
	message, err := Count.New(func(c events.Count) error { c.SetNumber(7); return nil })
	if err != nil {
		return err
	}
	if err := endpoint.Broadcast(ctx, message); err != nil { // waits while a peer's queue is full
		return err
	}
	for event := range counts.Events(ctx) {
		count, err := Count.Read(event)
		if err != nil {
			return err
		}
		fmt.Println(event.From, count.Number())
	}
	return ctx.Err()
}
