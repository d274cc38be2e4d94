package peer

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"lahja-capn.example/peer/internal/session"
	"lahja-capn.example/peer/internal/wire"
	"lahja-capn.example/peer/internal/wirecapnp"
)

const (
	// pullBytes leave in one write; control messages overtake what is still queued behind them.
	pullBytes = 128 << 10
	// joinBelow: smaller frames are copied together, larger ones written from where they lie.
	joinBelow = 16 << 10
	// writeBytes are written at a time, so that a peer that reads slowly is seen to read.
	writeBytes = 256 << 10
)

// conn drives a session over a socket: one goroutine reads and never stops reading, one writes what the session has.
type conn struct {
	endpoint *Endpoint
	socket   net.Conn
	session  *session.Session
	// path is where a connector went.
	path   string
	dialed bool

	// ctx ends when nothing comes or goes any more: handlers of its requests get it.
	ctx    context.Context
	cancel context.CancelFunc
	// kick wakes the writer, done ends it; written is closed when it has ended.
	kick    chan struct{}
	done    chan struct{}
	written chan struct{}

	// heard is when the last byte came, as a duration since the endpoint's start; probed is closed when one comes.
	heard  atomic.Int64
	probed atomic.Pointer[chan struct{}]
	// eventsTaken is when the peer last took some events, likewise: bytes of them were written, or credit for them came
	// back. All else that it reads and sends is no sign that it will take any.
	eventsTaken   atomic.Int64
	requestsTaken atomic.Int64
	answersTaken  atomic.Int64

	// Below: guarded by the endpoint's mu.
	accepted bool
	isUp     bool
	finished bool
	ending   *session.Ending
	pending  map[uint64]*request
	timer    *time.Timer
	alarm    time.Time
}

// run starts a connection. Called with mu held.
func (e *Endpoint) run(socket net.Conn, dialed bool, expected, path string) *conn {
	now := time.Now()
	c := &conn{
		endpoint: e,
		socket:   socket,
		session:  session.New(&e.local, e.table, dialed, expected, now),
		path:     path,
		dialed:   dialed,
		kick:     make(chan struct{}, 1),
		done:     make(chan struct{}),
		written:  make(chan struct{}),
		pending:  map[uint64]*request{},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.heard.Store(int64(now.Sub(e.start)))
	e.conns[c] = true
	if dialed {
		e.dialing[expected] = c
	}
	go c.read()
	go c.write()
	c.after()
	return c
}

// name of the peer; "" before its hello.
func (c *conn) name() string {
	if c.session.Peer == nil {
		return ""
	}
	return c.session.Peer.Name
}

func (c *conn) lastHeard() time.Time { return c.endpoint.start.Add(time.Duration(c.heard.Load())) }

// --- in ---

// Read notes that the peer lives.
func (c *conn) Read(into []byte) (int, error) {
	n, err := c.socket.Read(into)
	if n > 0 {
		c.heard.Store(int64(time.Since(c.endpoint.start)))
		if probed := c.probed.Swap(nil); probed != nil {
			close(*probed)
		}
	}
	return n, err
}

func (c *conn) read() {
	e := c.endpoint
	decoder := wire.NewDecoder(e.config.FrameLimit)
	for {
		n, err := c.Read(decoder.Buffer())
		decoder.Received(n)
		e.mu.Lock()
		now := time.Now()
		c.session.Heard(c.lastHeard())
		c.take(decoder, now)
		if err != nil && c.session.State() != session.Closing {
			c.session.Lost(lost(err, decoder.Inside()))
		}
		c.after()
		state := c.session.State()
		e.mu.Unlock()
		if state == session.Closing {
			c.discard()
			return
		}
		if state == session.Closed {
			return
		}
	}
}

// take hands whole frames to the session.
func (c *conn) take(decoder *wire.Decoder, now time.Time) {
	for c.session.State() == session.Handshake || c.session.State() == session.Up {
		header, frame, err := decoder.Next(c.session.CheckHeader)
		if err != nil {
			c.session.Refuse(err, now)
			return
		}
		if frame == nil {
			return
		}
		c.session.HandleFrame(header, frame, now)
	}
}

func lost(err error, inside bool) string {
	switch {
	case !errors.Is(err, io.EOF):
		return err.Error()
	case inside:
		return "end of stream inside a frame"
	default:
		return "end of stream without goodbye"
	}
}

// discard reads until the end of the stream, or until the deadline of the goodbye closes the socket. A peer that has
// ended its direction still gets the goodbye.
func (c *conn) discard() {
	_, _ = io.Copy(io.Discard, c)
	<-c.written
	c.endpoint.mu.Lock()
	defer c.endpoint.mu.Unlock()
	c.session.Lost("")
	c.after()
}

// --- out ---

func (c *conn) write() {
	defer close(c.written)
	e := c.endpoint
	var joined []byte
	var taking []*atomic.Int64
	for {
		select {
		case <-c.kick:
		case <-c.done:
			return
		}
		for {
			e.mu.Lock()
			before := c.session.Sent()
			frames := c.session.Pull(pullBytes)
			taking = c.taking(before, c.session.Sent(), taking[:0])
			finished := c.session.SendFinished()
			e.mu.Unlock()
			if len(frames) == 0 {
				if finished {
					c.closeWrite()
					return
				}
				break
			}
			var err error
			if joined, err = c.writeFrames(frames, taking, joined[:0]); err != nil {
				// The peer may have said goodbye before it went: the reader finds that, or the end of the stream.
				c.closeWrite()
				return
			}
			e.mu.Lock()
			e.wake()
			e.mu.Unlock()
		}
	}
}

// writeFrames writes frames, small ones joined in the memory of joined, which it returns for the next time. taking are
// the clocks of what is in them.
func (c *conn) writeFrames(frames [][]byte, taking []*atomic.Int64, joined []byte) ([]byte, error) {
	for _, frame := range frames {
		if len(frame) < joinBelow {
			joined = append(joined, frame...)
			continue
		}
		if err := c.writeAll(joined, taking); err != nil {
			return joined, err
		}
		joined = joined[:0]
		if err := c.writeAll(frame, taking); err != nil {
			return joined, err
		}
	}
	return joined, c.writeAll(joined, taking)
}

func (c *conn) writeAll(data []byte, taking []*atomic.Int64) error {
	for len(data) > 0 {
		n, err := c.socket.Write(data[:min(len(data), writeBytes)])
		if n > 0 {
			c.took(taking...)
		}
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// taking appends to clocks those of the kinds of which more was sent.
func (c *conn) taking(before, after session.Sent, clocks []*atomic.Int64) []*atomic.Int64 {
	if after.Events > before.Events {
		clocks = append(clocks, &c.eventsTaken)
	}
	if after.Requests > before.Requests {
		clocks = append(clocks, &c.requestsTaken)
	}
	if after.Answers > before.Answers {
		clocks = append(clocks, &c.answersTaken)
	}
	return clocks
}

// took sets clocks to now.
func (c *conn) took(taking ...*atomic.Int64) {
	now := int64(time.Since(c.endpoint.start))
	for _, clock := range taking {
		clock.Store(now)
	}
}

func (c *conn) closeWrite() {
	if half, ok := c.socket.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// --- what the session made of it; all below with mu held ---

// after passes on what a call of the session brought about. It must follow every such call.
func (c *conn) after() {
	for {
		events := c.session.TakeEvents()
		if len(events) == 0 {
			break
		}
		for _, event := range events {
			c.on(event)
		}
	}
	c.flush()
	if c.session.State() == session.Closed {
		c.finish()
	} else {
		c.setAlarm()
	}
	c.endpoint.wake()
}

// flush lets the writer send what the session has.
func (c *conn) flush() {
	if c.session.HasOutput() || c.session.SendFinished() {
		select {
		case c.kick <- struct{}{}:
		default:
		}
	}
}

func (c *conn) on(event session.Event) {
	e := c.endpoint
	switch event := event.(type) {
	case session.Arrived:
		if event.Number == 0 {
			e.deliver(c, event)
		} else {
			e.handle(c, event)
		}
	case session.Answered:
		e.answered(c, event)
	case session.AnsweredFailed:
		e.failed(c, event)
	case session.PeerHello:
		e.settle(c)
	case session.PeerUp:
		c.isUp = true
		e.up[c.name()] = c
		e.notices.add(Notice{Kind: PeerUp, Peer: c.name()})
		remote, _ := c.session.Remote()
		for typeID := range remote {
			c.noticeSubscription(PeerSubscribed, typeID)
		}
	case session.SubscriptionsChanged:
		for _, typeID := range event.Removed {
			c.noticeSubscription(PeerUnsubscribed, typeID)
		}
		for _, typeID := range event.Added {
			c.noticeSubscription(PeerSubscribed, typeID)
		}
	case session.CreditCame:
		if event.Events > 0 {
			c.took(&c.eventsTaken)
		}
		if event.Requests > 0 {
			c.took(&c.requestsTaken)
		}
	case session.TypeDisabled:
		e.notices.add(Notice{Kind: TypeDisabled, Peer: c.name(), TypeID: event.TypeID,
			Type: e.known[event.TypeID], Text: event.String()})
	case session.Ended:
		c.onEnded(event.Ending)
	}
}

func (c *conn) noticeSubscription(kind NoticeKind, typeID uint64) {
	e := c.endpoint
	e.notices.add(Notice{Kind: kind, Peer: c.name(), TypeID: typeID, Type: e.known[typeID]})
}

// onEnded: nothing comes or goes any more, for the user; the goodbye may still be on its way.
func (c *conn) onEnded(ending session.Ending) {
	e := c.endpoint
	c.ending = &ending
	kind := Refused
	if c.isUp {
		kind = PeerDown
	}
	c.isUp = false
	for _, names := range []map[string]*conn{e.dialing, e.holders, e.up} {
		for name, held := range names {
			if held == c {
				delete(names, name)
			}
		}
	}
	for number, r := range c.pending {
		delete(c.pending, number)
		r.gone(c)
	}
	c.cancel()
	if probed := c.probed.Swap(nil); probed != nil {
		close(*probed)
	}
	e.notices.add(Notice{Kind: kind, Peer: c.name(), Code: ending.CodeName(), ByPeer: ending.ByPeer, Text: ending.Text})
	if c.session.State() == session.Closing {
		// Bounds a write under way, and the goodbye behind it.
		_ = c.socket.SetWriteDeadline(time.Now().Add(e.config.CloseTimeout))
	}
}

// finish closes the socket. Both goroutines end.
func (c *conn) finish() {
	if c.finished {
		return
	}
	c.finished = true
	if c.timer != nil {
		c.timer.Stop()
	}
	_ = c.socket.Close()
	close(c.done)
	delete(c.endpoint.conns, c)
}

// close ends the connection from our side.
func (c *conn) close(code wirecapnp.GoodbyeCode, text string) {
	c.session.Close(code, text, time.Now())
	c.after()
}

// --- time ---

// setAlarm makes sure that onAlarm is called at the session's deadline, or earlier.
func (c *conn) setAlarm() {
	deadline := c.session.Deadline()
	if deadline.IsZero() || !c.alarm.IsZero() && !deadline.Before(c.alarm) {
		return
	}
	c.alarm = deadline
	if c.timer == nil {
		c.timer = time.AfterFunc(time.Until(deadline), c.onAlarm)
	} else {
		c.timer.Reset(time.Until(deadline))
	}
}

func (c *conn) onAlarm() {
	c.endpoint.mu.Lock()
	defer c.endpoint.mu.Unlock()
	if c.finished {
		return
	}
	c.alarm = time.Time{}
	now := time.Now()
	c.session.Heard(c.lastHeard())
	if c.session.State() == session.Up && c.session.WouldJudge() && readable(c.socket) {
		// This process may be the one that was stopped: what lies there is a sign of life.
		c.session.Heard(now)
	}
	c.session.HandleTime(now)
	c.after()
}
