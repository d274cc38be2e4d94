package peer_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	peer "lahja-capn.example/peer"
	. "lahja-capn.example/peer/conformance"
	"lahja-capn.example/peer/internal/session"
)

func TestTheOwnNameIsInUse(t *testing.T) {
	s, path := listening(t, "server", nil)
	r := dialRaw(t, path)
	r.hello("server", one)
	r.ends("nameInUse")
	if got := s.told(peer.Refused); got.Code != "nameInUse" || got.ByPeer {
		t.Errorf("got %+v", got)
	}
}

func TestAnEndpointThatReachesItselfIsTold(t *testing.T) {
	s, path := listening(t, "server", func(config *peer.Config) { config.HandshakeTimeout = 50 * time.Millisecond })
	var refused *peer.ConnectError
	if err := s.Connect(within(t), "other", path); !errors.As(err, &refused) || refused.Code != "duplicate" {
		t.Errorf("got %v", err)
	}
}

func TestAnotherNameThanTheWantedOneIsRefused(t *testing.T) {
	_, path := listening(t, "server", nil)
	c := join(t, "client", nil)
	var refused *peer.ConnectError
	if err := c.Connect(within(t), "other", path); !errors.As(err, &refused) || refused.Code != "wrongName" || refused.ByPeer {
		t.Errorf("got %v", err)
	}
}

func TestTheHolderOfANameThatAnswersKeepsIt(t *testing.T) {
	s, path := listening(t, "server", nil)
	holder := dialRaw(t, path)
	holder.hello("client", one)
	await[*session.Subscriptions](holder)
	s.told(peer.PeerUp)
	newcomer := dialRaw(t, path)
	newcomer.hello("client", two)
	await[*session.Ping](holder)
	holder.send(&session.Pong{})
	newcomer.ends("nameInUse")
	if len(s.Peers()) != 1 {
		t.Error("the holder is gone")
	}
}

func TestASilentHolderOfANameLosesIt(t *testing.T) {
	s, path := listening(t, "server", func(config *peer.Config) { config.ProbeTimeout = 20 * time.Millisecond })
	holder := dialRaw(t, path)
	holder.hello("client", one)
	await[*session.Subscriptions](holder)
	s.told(peer.PeerUp) // all that it sent was read
	newcomer := dialRaw(t, path)
	newcomer.hello("client", two)
	await[*session.Subscriptions](newcomer)
	holder.ends("replaced")
	newcomer.send(&session.Goodbye{})
	for _, code := range []string{"replaced", "shutdown"} {
		if got := s.told(peer.PeerDown); got.Code != code {
			t.Errorf("got %+v, wanted %s", got, code)
		}
	}
}

func TestOfSeveralNewcomersOneIsAcceptedAndTheNextMeetsIt(t *testing.T) {
	s, path := listening(t, "server", func(config *peer.Config) { config.ProbeTimeout = 100 * time.Millisecond })
	holder := dialRaw(t, path)
	holder.hello("client", one)
	await[*session.Subscriptions](holder)
	s.told(peer.PeerUp) // all that it sent was read
	outcomes := make(chan string, 3)
	for i := range 3 {
		r := dialRaw(t, path)
		r.hello("client", strings.Repeat(string(rune('a'+i)), 16))
		go func() {
			for {
				message, err := r.next()
				switch m := message.(type) {
				case *session.Subscriptions:
					outcomes <- "accepted"
				case *session.Ping:
					_, _ = r.socket.Write(session.EncodeControl(&session.Pong{}))
				case *session.Goodbye:
					outcomes <- session.CodeName(m.Code)
				}
				if err != nil {
					return
				}
			}
		}()
	}
	holder.ends("replaced")
	seen := map[string]int{}
	for range 3 {
		seen[<-outcomes]++
	}
	if seen["accepted"] != 1 || seen["nameInUse"] != 2 {
		t.Errorf("got %v", seen)
	}
}

func TestANewConnectionOfTheSameInstanceReplacesTheOld(t *testing.T) {
	s, path := listening(t, "server", nil)
	old := dialRaw(t, path)
	old.hello("client", one)
	await[*session.Subscriptions](old)
	s.told(peer.PeerUp)
	fresh := dialRaw(t, path)
	fresh.hello("client", one)
	await[*session.Subscriptions](fresh)
	old.ends("replaced")
	s.told(peer.PeerUp)
}

func TestTwoThatConnectToEachOtherKeepTheConnectionOfTheLowerName(t *testing.T) {
	for range 30 {
		a, aPath := listening(t, "alpha", nil)
		b, bPath := listening(t, "beta", nil)
		results := make(chan error)
		go func() { results <- a.Connect(within(t), "beta", bPath) }()
		go func() { results <- b.Connect(within(t), "alpha", aPath) }()
		ok(t, <-results)
		ok(t, <-results)
		received := subscribe(t, a, Count)
		// Both may have come up on the connection that does not survive. What is sent on that is lost with it.
		for limit := within(t); ; {
			ok(t, b.WaitForSubscriber(limit, Count))
			ok(t, b.Broadcast(limit, countOf(t, 5)))
			soon, cancel := context.WithTimeout(limit, 20*time.Millisecond)
			_, err := received.Next(soon)
			cancel()
			if err == nil {
				break
			}
			ok(t, limit.Err())
		}
		// Also the event may have come on the connection that does not survive, and before the survivor is up.
		for deadline := time.Now().Add(patience); len(a.Peers()) != 1 || len(b.Peers()) != 1; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d and %d peers", len(a.Peers()), len(b.Peers()))
			}
		}
		ok(t, a.Close(within(t)))
		ok(t, b.Close(within(t)))
	}
}

// crossing returns a server that has dialed the raw peer called other, whose hello it waits for.
func crossing(t *testing.T, other string) (s *member, path string, dialed *raw, result chan error) {
	t.Helper()
	s, path = listening(t, "mmm", nil)
	theirs := place(t)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: theirs, Net: "unix"})
	ok(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	result = make(chan error, 1)
	go func() { result <- s.Connect(within(t), other, theirs) }()
	socket, err := listener.AcceptUnix()
	ok(t, err)
	dialed = rawOn(t, socket)
	await[*session.Hello](dialed)
	return s, path, dialed, result
}

func TestTheLowerNamesAttemptSurvivesWhenItsHelloComesToTheAcceptor(t *testing.T) {
	// We are the higher one: our attempt ends, and theirs is accepted.
	_, path, dialed, result := crossing(t, "aaa")
	r := dialRaw(t, path)
	r.hello("aaa", one)
	dialed.ends("duplicate")
	await[*session.Subscriptions](r)
	ok(t, <-result)
	// We are the lower one: theirs ends, and ours goes on.
	_, path, dialed, result = crossing(t, "zzz")
	r = dialRaw(t, path)
	r.hello("zzz", one)
	r.ends("duplicate")
	dialed.hello("zzz", one)
	await[*session.Subscriptions](dialed)
	ok(t, <-result)
}

func TestCrossedConnectionsAreSettledToo(t *testing.T) {
	for other, ours := range map[string]bool{"aaa": false, "zzz": true} {
		s, path := listening(t, "mmm", nil)
		r := dialRaw(t, path)
		r.hello(other, one)
		await[*session.Subscriptions](r)
		s.told(peer.PeerUp)
		// We hold theirs; now ours meets it. Connect would not dial a peer that is up, so the raw peer's name is
		// learned first and the connection made while it is not.
		r.send(&session.Goodbye{})
		s.told(peer.PeerDown)
		theirs := place(t)
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: theirs, Net: "unix"})
		ok(t, err)
		result := make(chan error, 1)
		go func() { result <- s.Connect(within(t), other, theirs) }()
		socket, err := listener.AcceptUnix()
		ok(t, err)
		dialed := rawOn(t, socket)
		dialed.hello(other, one)
		await[*session.Subscriptions](dialed)
		ok(t, <-result)
		r = dialRaw(t, path)
		r.hello(other, one)
		if ours {
			r.ends("duplicate")
		} else {
			dialed.ends("duplicate")
			await[*session.Subscriptions](r)
		}
		_ = listener.Close()
	}
}
