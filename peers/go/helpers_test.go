package peer_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	peer "lahja-capn.example/peer"
	. "lahja-capn.example/peer/conformance"
	"lahja-capn.example/peer/conformance/events"
)

// patience bounds waits for what must happen; nothing waits for it to pass.
const patience = 20 * time.Second

// member is an endpoint under test, and what it was told.
type member struct {
	*peer.Endpoint
	t *testing.T

	mu      sync.Mutex
	changed *sync.Cond
	notices []peer.Notice
}

func join(t *testing.T, name string, change func(*peer.Config)) *member {
	t.Helper()
	m := &member{t: t}
	m.changed = sync.NewCond(&m.mu)
	config := peer.Config{Name: name, Notify: m.notify}
	if change != nil {
		change(&config)
	}
	endpoint, err := peer.New(config)
	if err != nil {
		t.Fatal(err)
	}
	m.Endpoint = endpoint
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	return m
}

func (m *member) notify(n peer.Notice) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notices = append(m.notices, n)
	m.changed.Broadcast()
}

// told waits until a notice of this kind came, and returns it.
func (m *member) told(kind peer.NoticeKind) peer.Notice {
	m.t.Helper()
	return m.toldThat(fmt.Sprintf("notice %d", kind), func(n peer.Notice) bool { return n.Kind == kind })
}

func (m *member) toldThat(what string, is func(peer.Notice) bool) peer.Notice {
	m.t.Helper()
	timer := time.AfterFunc(patience, func() { m.mu.Lock(); m.changed.Broadcast(); m.mu.Unlock() })
	defer timer.Stop()
	deadline := time.Now().Add(patience)
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		for i, n := range m.notices {
			if is(n) {
				m.notices = append(m.notices[:i:i], m.notices[i+1:]...)
				return n
			}
		}
		if !time.Now().Before(deadline) {
			m.t.Fatalf("%s was not told: %s; it was told %+v", m.Name(), what, m.notices)
		}
		m.changed.Wait()
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// place is a socket's path. The folder of the test may be too deep for one.
func place(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "go")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return filepath.Join(folder, "s")
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair returns a server and a client that are connected.
func pair(t *testing.T, server, client func(*peer.Config)) (*member, *member) {
	t.Helper()
	path := place(t)
	s, c := join(t, "server", server), join(t, "client", client)
	ok(t, s.Listen(path))
	ok(t, c.Connect(within(t), "server", path))
	s.told(peer.PeerUp)
	c.told(peer.PeerUp)
	return s, c
}

func countOf(t testing.TB, number uint64) *peer.Message {
	t.Helper()
	message, err := Count.New(func(c events.Count) error { c.SetNumber(number); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return message
}

func ask(t testing.TB, number uint64, mode events.Mode) *peer.Message {
	t.Helper()
	message, err := Ask.New(func(a events.Ask) error { a.SetNumber(number); a.SetMode(mode); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return message
}

func twice(_ context.Context, request *peer.Event) (*peer.Message, error) {
	asked, err := Ask.Read(request)
	if err != nil {
		return nil, err
	}
	switch asked.Mode() {
	case events.Mode_fail:
		return nil, &peer.Failure{TypeName: "ValueError", Text: "asked to fail"}
	case events.Mode_silence:
		return nil, peer.ErrNoAnswer
	}
	return Answer.New(func(a events.Answer) error { a.SetNumber(2 * asked.Number()); return nil })
}

func subscribe(t *testing.T, m *member, types ...peer.AnyType) *peer.Subscription {
	t.Helper()
	s, err := m.Subscribe(types...)
	ok(t, err)
	ok(t, m.Acknowledged(within(t)))
	return s
}

func next(t *testing.T, s *peer.Subscription) uint64 {
	t.Helper()
	event, err := s.Next(within(t))
	ok(t, err)
	count, err := Count.Read(event)
	ok(t, err)
	return count.Number()
}
