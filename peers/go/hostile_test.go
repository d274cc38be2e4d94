package peer_test

import (
	"bytes"
	"encoding/hex"
	"io"
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

// hungry is a raw peer that wants every Count, with a window for one, and a server whose queue for it is full.
func hungry(t *testing.T, tooSlow time.Duration) (s *member, r *raw, sent chan error) {
	t.Helper()
	s, path := listening(t, "server", func(config *peer.Config) {
		config.QueueBytes = 40
		config.TooSlow = tooSlow
	})
	r = dialRaw(t, path)
	r.send(&session.Hello{ProtocolVersion: 1, Name: "client", Instance: []byte(one), FrameLimit: 1 << 20,
		EventCredit: 1, RequestCredit: 1, Types: []session.TableRow{{WireID: 1, Row: Count.Core().Row}}},
		&session.Subscriptions{Sequence: 1, Add: []uint64{Count.TypeID()}})
	ok(t, s.WaitForSubscriber(within(t), Count))
	sent = make(chan error, 1)
	go func() {
		for number := range uint64(3) {
			if err := s.Broadcast(within(t), countOf(t, number)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	return s, r, sent
}

func TestAPeerThatTakesNoEventsIsTooSlowWhateverElseItDoes(t *testing.T) {
	s, r, sent := hungry(t, 200*time.Millisecond)
	go func() {
		ping := session.EncodeControl(&session.Ping{})
		for {
			if _, err := r.socket.Write(ping); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	pongs := 0
	for {
		switch message := r.receive().(type) {
		case *session.Pong:
			pongs++
			continue
		case *session.Goodbye:
			if got := session.CodeName(message.Code); got != "tooSlow" || pongs == 0 {
				t.Errorf("goodbye %s after %d pongs", got, pongs)
			}
		default:
			continue
		}
		break
	}
	ok(t, <-sent)
	if down := s.told(peer.PeerDown); down.Code != "tooSlow" || down.ByPeer {
		t.Errorf("got %+v", down)
	}
}

func TestAPeerThatReturnsCreditNowAndThenIsNotTooSlow(t *testing.T) {
	const tooSlow = 500 * time.Millisecond
	s, r, sent := hungry(t, tooSlow)
	// One byte at a time: the balance stays below 0 all the while, and no event leaves.
	for began := time.Now(); time.Since(began) < 2*tooSlow; {
		r.send(&session.Credit{Events: 1})
		time.Sleep(tooSlow / 10)
		select {
		case err := <-sent:
			t.Fatalf("sent within a balance below 0: %v, %+v", err, s.notices)
		default:
		}
	}
	r.send(&session.Credit{Events: 1000})
	ok(t, <-sent)
	if len(s.Peers()) != 1 {
		t.Errorf("it was disconnected: %+v", s.told(peer.PeerDown))
	}
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
