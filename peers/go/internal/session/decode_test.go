package session

import (
	"errors"
	"math/rand"
	"reflect"
	"strings"
	"testing"

	"capnproto.org/go/capnp/v3"

	"lahja-capn.example/peer/internal/wire"
	"lahja-capn.example/peer/internal/wirecapnp"
)

func samples() []Control {
	return []Control{
		&Hello{ProtocolVersion: 1, Name: "meter", Instance: []byte("0123456789abcdef"), Implementation: "x", Version: "1",
			FrameLimit: 4096, KeepaliveMs: 5, EventCredit: Unlimited, RequestCredit: 7, Features: []string{"a", "bc"},
			Types: []TableRow{{WireID: 3, Row: Row{TypeID: 1 << 63, Name: "é", Layout: []uint32{1, 1 << 31}}},
				{Row: Row{TypeID: 2, Kind: wirecapnp.Kind_opaque}}}},
		&Declare{Types: []TableRow{{WireID: 65535, Row: Row{TypeID: 9, Name: "n"}}}},
		&Subscriptions{Sequence: 1 << 63, Add: []uint64{1, 1 << 63}, Remove: []uint64{0}, All: true, AckWanted: true},
		&SubscriptionsAck{Sequence: 5},
		&Credit{Events: 1, Requests: 1 << 62},
		&Failed{Correlation: 8, Code: wirecapnp.FailedCode_overloaded, TypeName: "T", Text: "text"},
		&Ping{},
		&Pong{},
		&Dropped{Counts: []DropCount{{TypeID: 1, Count: 2}, {TypeID: 1, Count: 3}}},
		&Goodbye{Code: wirecapnp.GoodbyeCode_notPermitted, Text: "why"},
	}
}

func TestEveryControlMessageReadsAsItWasWritten(t *testing.T) {
	for _, message := range samples() {
		got, err := DecodeControl(EncodeControl(message))
		if err != nil || !reflect.DeepEqual(got, message) {
			t.Errorf("%T: got %+v, %v; wanted %+v", message, got, err, message)
		}
	}
}

func TestTextsAreCutToWhatPeersMustAccept(t *testing.T) {
	long := strings.Repeat("\xff", 20000)
	got, err := DecodeControl(EncodeControl(&Failed{TypeName: long, Text: long}))
	if err != nil {
		t.Fatal(err)
	}
	failed := got.(*Failed)
	if len(failed.TypeName) > nameTextBytes || len(failed.TypeName) < nameTextBytes-6 || len(failed.Text) > failedTextBytes {
		t.Errorf("%d and %d bytes", len(failed.TypeName), len(failed.Text))
	}
}

func TestAListOfNumbersIsNoListOfTexts(t *testing.T) {
	built, segment, err := capnp.NewMessage(capnp.SingleSegment(nil))
	if err != nil {
		t.Fatal(err)
	}
	root, err := wirecapnp.NewRootControl(segment)
	if err != nil {
		t.Fatal(err)
	}
	hello, err := root.NewHello()
	if err != nil {
		t.Fatal(err)
	}
	hello.SetProtocolVersion(1)
	numbers, err := capnp.NewUInt64List(segment, 3)
	if err == nil {
		err = hello.SetFeatures(capnp.TextList(numbers))
	}
	if err != nil {
		t.Fatal(err)
	}
	frame, err := wire.Encode(wire.Control, 0, 0, built)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeControl(frame); err == nil {
		t.Errorf("got %+v", got)
	}
}

// decodes reads a frame and makes sure that whatever it is, the answer is a message or a refusal.
func decodes(t *testing.T, frame []byte) {
	t.Helper()
	if wire.CheckTable(frame) != nil {
		return
	}
	message, err := DecodeControl(frame)
	var refusal *wire.Error
	if (message == nil) == (err == nil) || err != nil && !errors.As(err, &refusal) {
		t.Fatalf("got %v and %v of % x", message, err, frame)
	}
}

func TestDamagedControlMessagesAreReadOrRefused(t *testing.T) {
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewSource(seed))
	for _, message := range samples() {
		original := EncodeControl(message)
		for range 20000 {
			frame := append([]byte(nil), original...)
			for range 1 + random.Intn(4) {
				at := 24 + random.Intn(len(frame)-24)
				if random.Intn(2) == 0 {
					frame[at] ^= 1 << random.Intn(8)
				} else {
					frame[at] = byte(random.Intn(256))
				}
			}
			decodes(t, frame)
		}
	}
}

func FuzzControl(f *testing.F) {
	for _, message := range samples() {
		f.Add(EncodeControl(message))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < wire.MinFrame {
			return
		}
		decodes(t, frame)
	})
}
