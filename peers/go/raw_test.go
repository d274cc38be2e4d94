package peer_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	peer "lahja-capn.example/peer"
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

// next returns the next control message, and skips content; the error io.EOF at the end of the stream.
func (r *raw) next() (session.Control, error) {
	for {
		header, frame, err := r.decoder.Next(func(wire.Header) error { return nil })
		if err != nil {
			return nil, err
		}
		if frame != nil {
			if header.Kind != wire.Control {
				continue
			}
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
