package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"strconv"
	"time"

	"capnproto.org/go/capnp/v3"

	peer "lahja-capn.example/peer"
	"lahja-capn.example/peer/conformance/events"
)

// say writes one line.
func (p *program) say(line object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sayLocked(line)
}

func (p *program) sayLocked(line object) {
	if p.over {
		return
	}
	if err := p.out.Encode(line); err != nil {
		log.Fatalf("standard output: %v", err)
	}
}

// end lets what still runs in the background say no more: nobody reads it once the program has ended.
func (p *program) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
}

func (p *program) notice(n peer.Notice) {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := nameOf[n.TypeID]
	switch n.Kind {
	case peer.PeerUp:
		p.remote = n.Peer
		p.ups++
		p.sayLocked(object{"is": "up", "peer": n.Peer})
	case peer.PeerDown:
		if p.remote == n.Peer {
			p.remote = ""
		}
		p.sayLocked(object{"is": "down", "peer": n.Peer, "code": n.Code, "by_peer": n.ByPeer})
	case peer.Refused:
		p.sayLocked(object{"is": "refused", "code": n.Code})
	case peer.PeerSubscribed:
		if n.Peer == p.remote && name != "" {
			p.sayLocked(object{"is": "peer_subscribed", "type": name})
		}
	case peer.PeerUnsubscribed:
		if n.Peer == p.remote && name != "" {
			p.sayLocked(object{"is": "peer_unsubscribed", "type": name})
		}
	case peer.TypeDisabled:
		log.Print(n.Text)
	}
	if n.Text != "" {
		log.Printf("%s: %s", n.Peer, n.Text)
	}
}

func (p *program) run(serve, connect, expect string, in io.Reader) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer p.endpoint.Close(ctx)
	var err error
	if p.subscription, err = p.endpoint.Subscribe(); err != nil {
		return err
	}
	go p.take(p.subscription.Events(ctx))
	if serve != "" {
		if err := p.endpoint.Listen(serve); err != nil {
			return err
		}
		p.say(object{"is": "listening"})
	} else {
		go func() {
			if err := p.endpoint.Connect(ctx, expect, connect); err != nil {
				log.Print(err)
			}
		}()
	}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			command := object{}
			decoder := json.NewDecoder(bytes.NewReader(line))
			decoder.UseNumber()
			failed := decoder.Decode(&command)
			if failed == nil && command["do"] == "stop" {
				if err := p.endpoint.Close(ctx); err != nil {
					return err
				}
				p.say(object{"is": "stopped"})
				return nil
			}
			if failed == nil {
				failed = p.do(ctx, command)
			}
			if failed != nil {
				p.say(object{"is": "error", "text": failed.Error(), "command": command})
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// --- events ---

func (p *program) take(events <-chan *peer.Event) {
	for {
		if p.held {
			(<-p.control)()
			continue
		}
		select {
		case f := <-p.control:
			f()
		case event, ok := <-events:
			if !ok {
				events = nil // the endpoint is closed
			} else if !p.wanted[event.Type] {
				continue // it was on its way to us when the type was unsubscribed
			} else if err := p.received(event); err != nil {
				log.Printf("an event of type %v cannot be read: %v", event.Type, err)
				p.say(object{"is": "error", "text": err.Error()})
			}
		}
	}
}

// between runs f between two events.
func (p *program) between(f func()) {
	done := make(chan struct{})
	p.control <- func() { f(); close(done) }
	<-done
}

func (p *program) want(changed []peer.AnyType, wanted bool) {
	p.between(func() {
		for _, t := range changed {
			p.wanted[t.(*peer.EventType)] = wanted
		}
	})
}

func (p *program) received(event *peer.Event) error {
	switch event.Type {
	case Count.EventType:
		count, err := Count.Read(event)
		if err != nil {
			return err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ordered = p.ordered && (p.counts == 0 || count.Number() == p.last+1)
		p.last = count.Number()
		p.counts++
		close(p.counted)
		p.counted = make(chan struct{})
	case Blob.EventType:
		blob, err := Blob.Read(event)
		if err != nil {
			return err
		}
		data, err := blob.Data()
		if err != nil {
			return err
		}
		sum := uint32(0)
		for _, b := range data {
			sum += uint32(b)
		}
		p.say(object{"is": "received_blob", "id": blob.Id(), "size": len(data), "sum": sum})
	default:
		root, err := event.Root()
		if err != nil {
			return err
		}
		name := nameOf[event.Type.TypeID()]
		value, err := ReadValue(name, root)
		if err != nil {
			return err
		}
		p.say(object{"is": "received", "type": name, "value": value})
	}
	return nil
}

// --- commands ---

func (p *program) do(ctx context.Context, command object) (err error) {
	problem := guarded(func() { err = p.command(ctx, command) })
	return errors.Join(err, problem)
}

func (p *program) command(ctx context.Context, command object) error {
	switch what := to[string](command["do"]); what {
	case "subscribe":
		p.want(typesIn(command), true)
		if err := p.subscription.Add(typesIn(command)...); err != nil {
			return err
		}
		if err := p.endpoint.Acknowledged(ctx); err != nil {
			return err
		}
		p.say(object{"is": "subscribed"})
	case "unsubscribe":
		p.want(typesIn(command), false)
		p.subscription.Remove(typesIn(command)...)
		if err := p.endpoint.Acknowledged(ctx); err != nil {
			return err
		}
		p.say(object{"is": "unsubscribed"})
	case "broadcast":
		message, err := BuildMessage(to[string](command["type"]), to[object](command["value"]))
		if err == nil {
			err = p.broadcast(ctx, message)
		}
		if err != nil {
			return err
		}
		p.say(object{"is": "sent"})
	case "blob":
		message, err := Blob.New(func(b events.Blob) error { return fillBlob(b, toInt(command["id"]), toInt(command["size"])) })
		if err == nil {
			err = p.broadcast(ctx, message)
		}
		if err != nil {
			return err
		}
		p.say(object{"is": "sent"})
	case "count":
		from, upTo := toInt(command["from"]), toInt(command["to"])
		go p.count(ctx, uint64(from), uint64(upTo), command["tag"])
	case "await_count":
		go p.awaitCount(ctx, uint64(toInt(command["count"])), command["tag"])
	case "request":
		number, mode := toU64(command["number"]), toEnum(command["mode"], events.ModeFromString)
		go p.request(ctx, number, mode, time.Duration(toInt(command["timeout_ms"]))*time.Millisecond, command["tag"])
	case "hold":
		p.between(func() { p.held = true })
		p.say(object{"is": "holding"})
	case "resume":
		p.between(func() { p.held = false })
		p.say(object{"is": "resumed"})
	case "serve_requests":
		if err := p.endpoint.Handle(Ask, answer); err != nil {
			return err
		}
		if err := p.endpoint.Acknowledged(ctx); err != nil {
			return err
		}
		p.say(object{"is": "serving"})
	case "status":
		stats := p.endpoint.Stats(p.peerName())
		p.say(object{"is": "status", "sent_events": stats.SentEvents, "received_events": stats.ReceivedEvents,
			"skipped": stats.Skipped, "waiting_for_credit": stats.WaitingForCredit})
	default:
		return fmt.Errorf("there is no command %q", what)
	}
	return nil
}

func typesIn(command object) []peer.AnyType {
	var found []peer.AnyType
	for _, name := range each(command["types"], to[string]) {
		t := types[name]
		if t == nil {
			panic(failure{fmt.Errorf("there is no event type %q", name)})
		}
		found = append(found, t)
	}
	return found
}

func (p *program) peerName() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.remote
}

// broadcast sends an event to the one peer that counts; to nobody if nobody is there.
func (p *program) broadcast(ctx context.Context, message *peer.Message) error {
	remote := p.peerName()
	if remote == "" {
		return nil
	}
	return p.endpoint.BroadcastTo(ctx, remote, message)
}

func fillBlob(b events.Blob, id, size int64) error {
	b.SetId(uint32(id))
	data, err := capnp.NewData(b.Segment(), make([]byte, size))
	if err != nil {
		return err
	}
	if err := capnp.Struct(b).SetPtr(0, data.ToPtr()); err != nil {
		return err
	}
	bytes, err := b.Data()
	for k := range bytes {
		bytes[k] = byte(31*int64(k) + id)
	}
	return err
}

func (p *program) count(ctx context.Context, from, to uint64, tag any) {
	p.mu.Lock()
	ups := p.ups
	p.mu.Unlock()
	for number := from; number < to; number++ {
		p.mu.Lock()
		same := ups == p.ups && p.remote != ""
		p.mu.Unlock()
		if !same {
			break // the rest would go nowhere, or surprise the next peer
		}
		message, err := Count.New(func(c events.Count) error { c.SetNumber(number); return nil })
		if err == nil {
			err = p.broadcast(ctx, message)
		}
		if err != nil {
			p.say(object{"is": "error", "text": err.Error(), "tag": tag})
			return
		}
	}
	p.say(object{"is": "counted", "tag": tag})
}

func (p *program) awaitCount(ctx context.Context, count uint64, tag any) {
	for {
		p.mu.Lock()
		if p.counts >= count {
			p.sayLocked(object{"is": "count_reached", "tag": tag, "count": count, "in_order": p.ordered})
			p.mu.Unlock()
			return
		}
		counted := p.counted
		p.mu.Unlock()
		select {
		case <-counted:
		case <-ctx.Done():
			return
		}
	}
}

// --- requests ---

func answer(_ context.Context, request *peer.Event) (*peer.Message, error) {
	ask, err := Ask.Read(request)
	if err != nil {
		return nil, err
	}
	switch ask.Mode() {
	case events.Mode_answer:
		return Answer.New(func(a events.Answer) error {
			a.SetNumber(2 * ask.Number())
			return a.SetText("twice " + strconv.FormatUint(ask.Number(), 10))
		})
	case events.Mode_fail:
		return nil, &peer.Failure{TypeName: "ValueError", Text: "asked to fail"}
	}
	return nil, peer.ErrNoAnswer
}

func (p *program) request(ctx context.Context, number uint64, mode events.Mode, timeout time.Duration, tag any) {
	if timeout <= 0 {
		timeout = math.MaxInt64
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	message, err := Ask.New(func(a events.Ask) error {
		a.SetNumber(number)
		a.SetMode(mode)
		return nil
	})
	line := object{"is": "failed", "tag": tag, "code": "noHandler", "type_name": "", "text": ""}
	var found *peer.Event
	if err == nil {
		if remote := p.peerName(); remote == "" {
			err = peer.ErrNobody
		} else {
			found, err = p.endpoint.RequestTo(ctx, remote, message, Answer)
		}
	}
	var got events.Answer
	if err == nil {
		got, err = Answer.Read(found)
	}
	var text string
	if err == nil {
		text, err = got.Text()
	}
	var failed *peer.RequestFailed
	switch {
	case err == nil:
		line = object{"is": "answered", "tag": tag, "number": strconv.FormatUint(got.Number(), 10), "text": text}
	case errors.As(err, &failed):
		line["code"], line["type_name"], line["text"] = failed.Code, failed.TypeName, failed.Text
	case errors.Is(err, context.DeadlineExceeded):
		line = object{"is": "timed_out", "tag": tag}
	case errors.Is(err, peer.ErrDisconnected):
		line = object{"is": "lost", "tag": tag}
	case errors.Is(err, peer.ErrNobody):
		line["text"] = err.Error()
	default:
		line["code"], line["text"] = "", err.Error()
	}
	p.say(line)
}
