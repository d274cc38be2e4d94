package conformance

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"lahja-capn.example/peer/internal/session"
	"lahja-capn.example/peer/internal/wire"
	"lahja-capn.example/peer/internal/wirecapnp"
)

// frameOf builds a value and returns the frame of it.
func frameOf(name string, value object, kind wire.Kind, wireID uint16, correlation uint64) ([]byte, error) {
	message, err := BuildMessage(name, value)
	if err != nil {
		return nil, err
	}
	frame := message.Frame()
	wire.PutHeader(frame, kind, wireID, correlation)
	return frame, nil
}

// consumer is the implementation under test of conversations and refusals: a session, and a user who does what the
// script says.
type consumer struct {
	setup      object
	session    *session.Session
	table      *session.Table
	decoder    *wire.Decoder
	now        time.Time
	subscribed map[string]bool
	held       []session.Arrived
	holding    bool

	// facts is what the user saw, frames what was sent.
	facts    []object
	frames   []object
	requests []uint64
	sequence uint64
	names    map[uint16]string
	tags     map[uint64]string
}

func newConsumer(role string, setup object) *consumer {
	c := &consumer{
		setup:      setup,
		table:      session.NewTable(),
		now:        time.Unix(1, 0),
		subscribed: map[string]bool{},
		names:      map[uint16]string{},
		tags:       map[uint64]string{},
	}
	local := &session.Local{
		Name:             "consumer",
		FrameLimit:       1048576,
		EventCredit:      16777216,
		RequestCredit:    4194304,
		OpenRequests:     16384,
		AnswerBytes:      16 << 20,
		HandshakeTimeout: 10 * time.Second,
		AckTimeout:       30 * time.Second,
		CloseTimeout:     2 * time.Second,
		Misses:           3,
		Find:             findType,
		Serves:           func(typeID uint64) bool { return nameOf[typeID] == "Ask" && c.subscribed["Ask"] },
	}
	instance := "c0c1c2c3c4c5c6c7c8c9cacbcccdcecf"
	set(setup, "name", func(v any) { local.Name = to[string](v) })
	set(setup, "instance", func(v any) { instance = to[string](v) })
	set(setup, "frame_limit", func(v any) { local.FrameLimit = int(toInt(v)) })
	set(setup, "event_credit", func(v any) { local.EventCredit = toWindow(v) })
	set(setup, "request_credit", func(v any) { local.RequestCredit = toWindow(v) })
	set(setup, "keepalive_ms", func(v any) { local.Keepalive = time.Duration(toInt(v)) * time.Millisecond })
	copy(local.Instance[:], must(hex.DecodeString(instance)))
	for _, name := range each(orEmpty(setup["subscribe"]), to[string]) {
		c.subscribed[name] = true
		c.learn(name)
	}
	c.decoder = wire.NewDecoder(local.FrameLimit)
	expected := ""
	if role == "connector" {
		expected = "vector"
	}
	c.session = session.New(local, c.table, role == "connector", expected, c.now)
	c.settle()
	return c
}

func toWindow(v any) uint64 {
	switch text := fmt.Sprint(v); text {
	case "unlimited":
		return session.Unlimited
	default:
		return must(strconv.ParseUint(text, 10, 64))
	}
}

func orEmpty(v any) any {
	if v == nil {
		return array{}
	}
	return v
}

func findType(typeID uint64) *session.Type {
	if t := types[nameOf[typeID]]; t != nil {
		return t.Core()
	}
	return nil
}

func (c *consumer) learn(name string) uint16 {
	t := types[name]
	if t == nil {
		panic(failure{fmt.Errorf("no event type %q", name)})
	}
	return must(c.table.WireID(t.Core()))
}

// receive lets bytes arrive in pieces.
func (c *consumer) receive(data []byte, piece int) {
	for len(data) > 0 {
		part := data[:min(len(data), piece)]
		data = data[len(part):]
		for len(part) > 0 {
			if state := c.session.State(); state == session.Closing || state == session.Closed {
				return
			}
			n := copy(c.decoder.Buffer(), part)
			part = part[n:]
			c.decoder.Received(n)
			c.session.Heard(c.now)
			c.frame()
		}
	}
}

// frame hands on what has arrived whole.
func (c *consumer) frame() {
	for {
		header, frame, err := c.decoder.Next(c.session.CheckHeader)
		if err != nil {
			c.session.Refuse(err, c.now)
		} else if frame != nil {
			c.session.HandleFrame(header, frame, c.now)
		}
		c.settle()
		if state := c.session.State(); frame == nil || state == session.Closing || state == session.Closed {
			return
		}
	}
}

// settle acts on all events and collects all frames, until nothing happens.
func (c *consumer) settle() {
	for {
		events := c.session.TakeEvents()
		for _, event := range events {
			c.see(event)
		}
		frames := c.session.Pull(1 << 20)
		for _, frame := range frames {
			c.sent(frame)
		}
		if len(events)+len(frames) == 0 {
			return
		}
	}
}

func (c *consumer) fact(kind string, value any) { c.facts = append(c.facts, object{kind: value}) }

func (c *consumer) see(event session.Event) {
	switch event := event.(type) {
	case session.PeerHello:
		c.session.Accept(idsOf(c.subscribed), c.setup["all"] == true, c.now)
	case session.PeerUp:
		c.fact("up", c.session.Peer.Name)
	case session.Arrived:
		if c.holding {
			c.held = append(c.held, event)
		} else {
			c.take(event)
		}
	case session.Answered:
		tag := c.tags[event.Number]
		delete(c.tags, event.Number)
		if event.Type == nil || nameOf[event.Type.Row.TypeID] != "Answer" {
			c.fact("failed", object{"tag": tag, "code": ""})
			return
		}
		value := must(readFrame("Answer", event.Frame))
		c.fact("answered", object{"tag": tag, "type": "Answer", "value": value})
	case session.AnsweredFailed:
		c.fact("failed", object{"tag": c.tags[event.Correlation], "code": codeValue(session.FailedName(event.Code)),
			"typeName": event.TypeName, "text": event.Text})
		delete(c.tags, event.Correlation)
	case session.Ended:
		for _, tag := range c.tags {
			c.fact("lost", object{"tag": tag})
		}
		clear(c.tags)
		c.fact("closed", object{"code": codeValue(event.CodeName()), "by_peer": event.ByPeer})
	}
}

func idsOf(names map[string]bool) []uint64 {
	var ids []uint64
	for name, wanted := range names {
		if wanted {
			ids = append(ids, types[name].TypeID())
		}
	}
	return ids
}

func (c *consumer) take(arrived session.Arrived) {
	name := nameOf[arrived.Type.Row.TypeID]
	value, err := readFrame(name, arrived.Frame)
	shown := object{"type": name, "value": value}
	if err != nil {
		shown = object{"type": name, "unreadable": true}
	}
	if arrived.Number == 0 {
		c.fact("event", shown)
		c.session.ReturnEventCredit(len(arrived.Frame))
		return
	}
	shown["number"] = u64(arrived.Number)
	c.fact("request", shown)
	c.session.ReturnRequestCredit(len(arrived.Frame))
	if c.setup["serve"] != true || err != nil {
		return
	}
	switch value["mode"] {
	case "answer":
		asked := toU64(value["number"])
		answer := object{"number": u64(2 * asked), "text": fmt.Sprintf("twice %d", asked)}
		wireID := c.learn("Answer")
		frame := must(frameOf("Answer", answer, wire.Response, wireID, arrived.Number))
		c.session.Respond(arrived.Number, types["Answer"].Core(), wireID, frame)
	case "fail":
		c.session.Fail(arrived.Number, wirecapnp.FailedCode_handlerRaised, "ValueError", "asked to fail")
	}
}

// sent reads what the consumer sends.
func (c *consumer) sent(frame []byte) {
	if n := len(c.frames); n > 0 && c.frames[n-1]["sent"] == "goodbye" {
		panic(failure{errors.New("a frame after goodbye")})
	}
	header := must(wire.ParseHeader(frame, wire.MaxFrame))
	check(wire.CheckTable(frame))
	if header.Kind != wire.Control {
		name := c.names[header.WireID]
		shown := object{"sent": header.Kind.String(), "type": name, "value": must(readFrame(name, frame))}
		if header.Kind != wire.Event {
			shown["correlation"] = u64(header.Correlation)
		}
		if header.Kind == wire.Request {
			c.requests = append(c.requests, header.Correlation)
		}
		c.frames = append(c.frames, shown)
		return
	}
	message := must(session.DecodeControl(frame))
	var rows []session.TableRow
	switch m := message.(type) {
	case *session.Hello:
		rows = m.Types
	case *session.Declare:
		rows = m.Types
	case *session.Subscriptions:
		c.sequence = m.Sequence
	}
	for _, row := range rows {
		if row.WireID != 0 {
			c.names[row.WireID] = nameOf[row.TypeID]
		}
	}
	name, value := showControl(message)
	shown := object{"sent": name}
	content, _ := value.(object)
	for key, v := range content {
		shown[key] = v
	}
	c.frames = append(c.frames, shown)
}

// do is what the consumer's user does.
func (c *consumer) do(step object) {
	switch action := to[string](step["do"]); action {
	case "broadcast":
		name := to[string](step["type"])
		core := types[name].Core()
		wireID := c.learn(name)
		if c.session.Wants(core) {
			frame := must(frameOf(name, to[object](step["value"]), wire.Event, wireID, 0))
			var tooLarge *session.TooLarge
			if err := c.session.QueueEvent(core, frame); err != nil && !errors.As(err, &tooLarge) {
				panic(failure{err})
			}
		}
	case "request":
		name := to[string](step["type"])
		c.learn("Answer")
		wireID := c.learn(name)
		frame := must(frameOf(name, to[object](step["value"]), wire.Request, wireID, 1))
		c.tags[must(c.session.QueueRequest(types[name].Core(), wireID, frame))] = to[string](step["tag"])
	case "forget":
		for number, tag := range c.tags {
			if tag == step["tag"] {
				delete(c.tags, number)
				c.session.Forget(number)
			}
		}
	case "subscribe", "unsubscribe":
		var ids []uint64
		for _, name := range each(step["types"], to[string]) {
			c.learn(name)
			c.subscribed[name] = action == "subscribe"
			ids = append(ids, types[name].TypeID())
		}
		if action == "subscribe" {
			c.session.Subscribe(ids, nil, c.setup["all"] == true, c.now)
		} else {
			c.session.Subscribe(nil, ids, c.setup["all"] == true, c.now)
		}
	case "hold":
		c.holding = true
	case "resume":
		c.holding = false
		for _, arrived := range c.held {
			c.take(arrived)
		}
		c.held = nil
	case "stop":
		c.session.Close(wirecapnp.GoodbyeCode_shutdown, "asked to", c.now)
	default:
		panic(failure{fmt.Errorf("unknown action %q", action)})
	}
	c.settle()
}
