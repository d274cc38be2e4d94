package peer_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	peer "lahja-capn.example/peer"
	. "lahja-capn.example/peer/conformance"
	"lahja-capn.example/peer/conformance/events"
	"lahja-capn.example/peer/internal/session"
	"lahja-capn.example/peer/internal/wire"
)

// raw is a peer that does what a test says, byte by byte.
type raw struct {
	t       *testing.T
	socket  *net.UnixConn
	decoder *wire.Decoder
}

func dialRaw(t *testing.T, path string) *raw {
	t.Helper()
	socket, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	ok(t, err)
	return rawOn(t, socket)
}

func rawOn(t *testing.T, socket *net.UnixConn) *raw {
	t.Cleanup(func() { _ = socket.Close() })
	ok(t, socket.SetDeadline(time.Now().Add(patience)))
	return &raw{t, socket, wire.NewDecoder(1 << 20)}
}

func (r *raw) send(messages ...session.Control) {
	r.t.Helper()
	for _, message := range messages {
		_, err := r.socket.Write(session.EncodeControl(message))
		ok(r.t, err)
	}
}

// hello introduces the peer, and subscribes to nothing.
func (r *raw) hello(name, instance string) {
	r.t.Helper()
	r.send(&session.Hello{ProtocolVersion: 1, Name: name, Instance: []byte(instance), FrameLimit: 1 << 20,
		EventCredit: 1 << 20, RequestCredit: 1 << 20}, &session.Subscriptions{Sequence: 1})
}

// next returns the next control message; the error io.EOF at the end of the stream.
func (r *raw) next() (session.Control, error) {
	for {
		_, frame, err := r.decoder.Next(func(wire.Header) error { return nil })
		if err != nil {
			return nil, err
		}
		if frame != nil {
			return session.DecodeControl(frame)
		}
		n, err := r.socket.Read(r.decoder.Buffer())
		r.decoder.Received(n)
		if n == 0 && err != nil {
			return nil, err
		}
	}
}

// receive returns the next control message, or nil at the end of the stream.
func (r *raw) receive() session.Control {
	r.t.Helper()
	message, err := r.next()
	if !errors.Is(err, io.EOF) {
		ok(r.t, err)
	}
	return message
}

// await skips messages until one of type T.
func await[T session.Control](r *raw) T {
	r.t.Helper()
	for {
		message := r.receive()
		if found, is := message.(T); is {
			return found
		}
		if message == nil {
			var wanted T
			r.t.Fatalf("the stream ended before a %T", wanted)
		}
	}
}

// ends waits for a goodbye with this code, and the end of the stream behind it.
func (r *raw) ends(code string) {
	r.t.Helper()
	if got := session.CodeName(await[*session.Goodbye](r).Code); got != code {
		r.t.Errorf("goodbye %s, wanted %s", got, code)
	}
	if after := r.receive(); after != nil {
		r.t.Errorf("%T after goodbye", after)
	}
}

func listening(t *testing.T, name string, change func(*peer.Config)) (*member, string) {
	t.Helper()
	m, path := join(t, name, change), place(t)
	ok(t, m.Listen(path))
	return m, path
}

const one, two = "1111111111111111", "2222222222222222"

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
		if len(a.Peers()) != 1 || len(b.Peers()) != 1 {
			t.Errorf("%d and %d peers", len(a.Peers()), len(b.Peers()))
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

func TestStrangersAreRefusedWithAGoodbyeAndTheirFirstBytesShown(t *testing.T) {
	s, path := listening(t, "server", nil)
	for _, text := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "SSH-", "\x16\x03\x01\x02"} {
		r := dialRaw(t, path)
		_, err := r.socket.Write([]byte(text))
		ok(t, err)
		if got := await[*session.Goodbye](r); !strings.Contains(got.Text, "no lahja_capn endpoint") {
			t.Errorf("got %q", got.Text)
		}
		if n := s.told(peer.Refused); !strings.Contains(n.Text, strings.Trim(strconv.Quote(text[:4]), `"`)) {
			t.Errorf("the user is told %q", n.Text)
		}
	}
}

func TestWhoEndsItsStreamBehindAFaultStillGetsTheGoodbye(t *testing.T) {
	_, path := listening(t, "server", nil)
	for range 50 {
		r := dialRaw(t, path)
		_, err := r.socket.Write(session.EncodeControl(&session.Credit{}))
		ok(t, err)
		ok(t, r.socket.CloseWrite())
		r.ends("protocolError")
	}
}

func TestWhoSaysNothingIsGivenUp(t *testing.T) {
	s, path := listening(t, "server", func(config *peer.Config) { config.HandshakeTimeout = 50 * time.Millisecond })
	dialRaw(t, path).ends("handshakeTimeout")
	if got := s.told(peer.Refused); got.Code != "handshakeTimeout" || got.Peer != "" {
		t.Errorf("got %+v", got)
	}
}

func TestASilentPeerIsPingedAndGivenUp(t *testing.T) {
	s, path := listening(t, "server", func(config *peer.Config) { config.Keepalive = 50 * time.Millisecond })
	r := dialRaw(t, path)
	r.hello("client", one)
	await[*session.Ping](r)
	await[*session.Ping](r)
	r.ends("keepaliveTimeout")
	if got := s.told(peer.PeerDown); got.Code != "keepaliveTimeout" || got.ByPeer {
		t.Errorf("got %+v", got)
	}
}

func TestAPeerThatAnswersPingsStays(t *testing.T) {
	s, path := listening(t, "server", func(config *peer.Config) { config.Keepalive = 20 * time.Millisecond })
	r := dialRaw(t, path)
	r.hello("client", one)
	for range 10 {
		await[*session.Ping](r)
		r.send(&session.Pong{})
	}
	if len(s.Peers()) != 1 {
		t.Error("it is gone")
	}
}

func TestAPeerThatNeverClosesIsClosedAfterTheGoodbye(t *testing.T) {
	s, path := listening(t, "server", func(config *peer.Config) { config.CloseTimeout = 50 * time.Millisecond })
	r := dialRaw(t, path)
	r.hello("client", one)
	s.told(peer.PeerUp)
	// It floods, and never reads: the goodbye cannot be written.
	flooded := make(chan error, 1)
	go func() {
		ping := session.EncodeControl(&session.Ping{})
		for {
			if _, err := r.socket.Write(ping); err != nil {
				flooded <- err
				return
			}
		}
	}()
	ok(t, s.Close(within(t)))
	if err := <-flooded; err == nil {
		t.Error("it is still connected")
	}
}

func TestAKilledPeerIsToldWithoutACode(t *testing.T) {
	s, path := listening(t, "server", nil)
	r := dialRaw(t, path)
	r.hello("client", one)
	s.told(peer.PeerUp)
	ok(t, r.socket.Close())
	if got := s.told(peer.PeerDown); got.Code != "" || !got.ByPeer || got.Peer != "client" {
		t.Errorf("got %+v", got)
	}
}

// countRow declares Count under wire id 9.
var countRow = session.TableRow{WireID: 9, Row: Count.Core().Row}

func TestEventsThatArriveTogetherWakeAllThatWait(t *testing.T) {
	s, path := listening(t, "server", nil)
	received, err := s.Subscribe(Count)
	ok(t, err)
	r := dialRaw(t, path)
	r.send(&session.Hello{ProtocolVersion: 1, Name: "client", Instance: []byte(one), FrameLimit: 1 << 20,
		Types: []session.TableRow{countRow}}, &session.Subscriptions{Sequence: 1})
	await[*session.Subscriptions](r)
	frame := countOf(t, 1).Frame()
	wire.PutHeader(frame, wire.Event, 9, 0)
	const many = 8
	for range 20 {
		results := make(chan error)
		for range many {
			go func() {
				_, err := received.Next(within(t))
				results <- err
			}()
		}
		_, err := r.socket.Write(bytes.Repeat(frame, many))
		ok(t, err)
		for range many {
			ok(t, <-results)
		}
	}
}

func TestATypeThatBecomesKnownLaterIsCompared(t *testing.T) {
	s, path := listening(t, "server", nil)
	r := dialRaw(t, path)
	other := countRow
	other.Layout = []uint32{1}
	r.send(&session.Hello{ProtocolVersion: 1, Name: "client", Instance: []byte(one), FrameLimit: 1 << 20,
		Types: []session.TableRow{other}}, &session.Subscriptions{Sequence: 1, Add: []uint64{Count.TypeID()}})
	s.told(peer.PeerUp)
	_, err := s.Subscribe(Count)
	ok(t, err)
	if got := s.told(peer.TypeDisabled); got.Type != Count.EventType || !strings.Contains(got.Text, "ordinal 0") {
		t.Errorf("got %+v", got)
	}
}

func TestAPeerThatReadsSlowlyIsNotThoughtToReadNothing(t *testing.T) {
	s, path := listening(t, "server", func(config *peer.Config) {
		config.QueueBytes = 1 << 20
		config.TooSlow = 300 * time.Millisecond
	})
	r := dialRaw(t, path)
	r.send(&session.Hello{ProtocolVersion: 1, Name: "client", Instance: []byte(one), FrameLimit: 1 << 30,
		EventCredit: session.Unlimited, Types: []session.TableRow{{WireID: 1, Row: Blob.Core().Row}}},
		&session.Subscriptions{Sequence: 1, Add: []uint64{Blob.TypeID()}})
	ok(t, s.WaitForSubscriber(within(t), Blob))
	go func() {
		// 4 MiB take about two seconds.
		into := make([]byte, 64<<10)
		for {
			if _, err := r.socket.Read(into); err != nil {
				return
			}
			time.Sleep(30 * time.Millisecond)
		}
	}()
	message, err := Blob.New(func(b events.Blob) error { return b.SetData(make([]byte, 4<<20)) })
	ok(t, err)
	// The first is being written, the second fills the queue, and the third waits until the first is through.
	for range 3 {
		ok(t, s.Broadcast(within(t), message))
	}
	if len(s.Peers()) != 1 {
		t.Errorf("it was disconnected: %+v", s.told(peer.PeerDown))
	}
	s.Disconnect("client")
}

func TestRandomBytesNeverEndTheProcess(t *testing.T) {
	_, path := listening(t, "server", nil)
	hello := session.EncodeControl(&session.Hello{ProtocolVersion: 1, Name: "x", Instance: []byte(one), FrameLimit: 1 << 20})
	noise, err := hex.DecodeString("00ff10203040506070")
	ok(t, err)
	for at := 16; at < len(hello); at++ {
		r := dialRaw(t, path)
		frame := bytes.Clone(hello)
		frame[at] ^= noise[at%len(noise)] | 1
		_, err := r.socket.Write(frame)
		ok(t, err)
		_ = r.socket.CloseWrite()
		_, _ = io.Copy(io.Discard, r.socket)
		_ = r.socket.Close()
	}
	r := dialRaw(t, path)
	r.hello("client", two)
	await[*session.Subscriptions](r)
}
