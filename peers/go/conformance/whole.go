package conformance

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	peer "lahja-capn.example/peer"
	"lahja-capn.example/peer/internal/session"
	"lahja-capn.example/peer/internal/wire"
)

// runEndpoint runs a refusal whose rule is decided above the session: against an endpoint that serves a socket. Its
// script sends everything at once.
func (v *vector) runEndpoint() error {
	folder := must(os.MkdirTemp("", "v"))
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "s")
	notices := make(chan peer.Notice, 10)
	setup, _ := v.facts["setup"].(object)
	name := "consumer"
	set(setup, "name", func(v any) { name = to[string](v) })
	endpoint := must(peer.New(peer.Config{Name: name, Notify: func(n peer.Notice) { notices <- n }}))
	defer endpoint.Close(context.Background())
	check(endpoint.Listen(path))
	socket := must(net.Dial("unix", path))
	defer socket.Close()
	check(socket.SetDeadline(time.Now().Add(10 * time.Second)))
	must(socket.Write(v.data))

	decoder := wire.NewDecoder(1 << 20)
	var last session.Control
	for {
		n, readErr := socket.Read(decoder.Buffer())
		decoder.Received(n)
		for {
			_, frame, err := decoder.Next(func(wire.Header) error { return nil })
			check(err)
			if frame == nil {
				break
			}
			last = must(session.DecodeControl(frame))
		}
		if readErr != nil {
			break
		}
	}
	told := <-notices
	goodbye, is := last.(*session.Goodbye)
	wanted := to[array](v.facts["goodbye"])
	if !is || !slices.Contains(wanted, any(session.CodeName(goodbye.Code))) {
		return fmt.Errorf("the last frame is %+v, wanted goodbye %v", last, wanted)
	}
	if told.Kind != peer.Refused || told.Code != session.CodeName(goodbye.Code) || told.ByPeer {
		return fmt.Errorf("the user was told %+v, wanted goodbye %v", told, wanted)
	}
	return nil
}
