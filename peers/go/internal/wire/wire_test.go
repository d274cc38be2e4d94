package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand"
	"strings"
	"testing"

	"capnproto.org/go/capnp/v3"

	"lahja-capn.example/peer/internal/wirecapnp"
)

func fromHex(t testing.TB, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The event of docs/wire.md section 15.
func specEvent(t testing.TB) []byte {
	return fromHex(t, `3c000000 01000000 00000000 00000000 00000000 05000000 00000000 02000100
		07000000 01000000 0000003f 00000000 01000000 1a000000 75700000 00000000`)
}

func code(t *testing.T, err error) wirecapnp.GoodbyeCode {
	t.Helper()
	var refusal *Error
	if !errors.As(err, &refusal) {
		t.Fatalf("got %v, wanted a refusal", err)
	}
	return refusal.Code
}

func header(length uint32, wireID, flag uint16, correlation uint64) []byte {
	data := make([]byte, HeaderSize)
	binary.LittleEndian.PutUint32(data, length)
	binary.LittleEndian.PutUint16(data[4:], wireID)
	binary.LittleEndian.PutUint16(data[6:], flag)
	binary.LittleEndian.PutUint64(data[8:], correlation)
	return data
}

func TestEveryCombinationOfHeaderFieldsIsTheOneOfTheTableOrRefused(t *testing.T) {
	for _, wireID := range []uint16{0, 1, 65535} {
		for _, flag := range []uint16{0, 1, 2, 3, 256, 257, 1 << 15} {
			for _, correlation := range []uint64{0, 1, 1 << 32, 1 << 63} {
				wanted, legal := Control, false
				switch {
				case wireID == 0:
					legal = flag == 0 && correlation == 0
				case flag == 0:
					wanted, legal = Event, correlation == 0
				case flag == 1:
					wanted, legal = Request, correlation != 0
				case flag == 2:
					wanted, legal = Response, correlation != 0
				}
				got, err := ParseHeader(header(28, wireID, flag, correlation), 1024)
				if legal {
					want := Header{Kind: wanted, WireID: wireID, Correlation: correlation, Size: 32}
					if err != nil || got != want {
						t.Errorf("%d %d %d: got %v %v, wanted %v", wireID, flag, correlation, got, err, want)
					}
				} else if err == nil || code(t, err) != wirecapnp.GoodbyeCode_protocolError {
					t.Errorf("%d %d %d: got %v %v, wanted a protocolError", wireID, flag, correlation, got, err)
				}
			}
		}
	}
}

func TestLengthsAtTheBounds(t *testing.T) {
	const ok = wirecapnp.GoodbyeCode(999)
	for _, c := range []struct {
		length uint32
		wireID uint16
		wanted wirecapnp.GoodbyeCode
	}{
		{20, 1, wirecapnp.GoodbyeCode_protocolError},
		{28, 1, ok},
		{29, 1, wirecapnp.GoodbyeCode_protocolError},
		{32, 1, wirecapnp.GoodbyeCode_protocolError},
		{2048 - 4, 1, ok},
		{2056 - 4, 1, wirecapnp.GoodbyeCode_frameTooLarge},
		{ControlLimit - 4, 0, ok},
		{ControlLimit + 4, 0, wirecapnp.GoodbyeCode_frameTooLarge},
		{1<<32 - 4, 1, wirecapnp.GoodbyeCode_frameTooLarge},
	} {
		_, err := ParseHeader(header(c.length, c.wireID, 0, 0), 2048)
		if c.wanted == ok {
			if err != nil {
				t.Errorf("%d: %v", c.length, err)
			}
		} else if err == nil || code(t, err) != c.wanted {
			t.Errorf("%d: got %v, wanted %v", c.length, err, c.wanted)
		}
	}
}

// feed hands data to a decoder in pieces and returns the frames.
func feed(decoder *Decoder, data []byte, piece func() int) (frames [][]byte, err error) {
	for len(data) > 0 {
		n := copy(decoder.Buffer(), data[:min(len(data), piece())])
		data = data[n:]
		decoder.Received(n)
		for {
			_, frame, err := decoder.Next(func(Header) error { return nil })
			if err != nil {
				return frames, err
			}
			if frame == nil {
				break
			}
			frames = append(frames, frame)
		}
	}
	return frames, nil
}

func bigFrame(words int) []byte {
	frame := make([]byte, 24+8*words)
	for i := range frame {
		frame[i] = byte(i * 7)
	}
	copy(frame[16:], header(0, 0, 0, 0))
	binary.LittleEndian.PutUint32(frame[20:], uint32(words))
	PutHeader(frame, Event, 3, 0)
	return frame
}

func TestEverySplitOfTheSameBytesYieldsTheSameFrames(t *testing.T) {
	// Sizes around that of the decoder's buffer: those that fill it, and those received into their own memory.
	wanted := [][]byte{specEvent(t), bigFrame(decoderBuffer/8 - 3), specEvent(t), bigFrame(decoderBuffer/8 - 2),
		bigFrame(decoderBuffer / 4), bigFrame(1), specEvent(t)}
	stream := bytes.Join(wanted, nil)
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewSource(seed))
	for name, piece := range map[string]func() int{
		"whole":    func() int { return len(stream) },
		"one":      func() int { return 1 },
		"random":   func() int { return 1 + random.Intn(3*decoderBuffer) },
		"small":    func() int { return 1 + random.Intn(40) },
		"a buffer": func() int { return decoderBuffer },
	} {
		decoder := NewDecoder(1 << 20)
		got, err := feed(decoder, stream, piece)
		if err != nil || len(got) != len(wanted) {
			t.Fatalf("%s: %d frames, wanted %d: %v", name, len(got), len(wanted), err)
		}
		for i := range wanted {
			if !bytes.Equal(got[i], wanted[i]) {
				t.Errorf("%s: frame %d differs", name, i)
			}
		}
		if decoder.Inside() {
			t.Errorf("%s: the decoder is inside a frame at the end", name)
		}
	}
}

func TestAFrameThatIsNotWholeIsNoneAndTheDecoderIsInsideOfIt(t *testing.T) {
	for _, frame := range [][]byte{specEvent(t), bigFrame(decoderBuffer)} {
		for _, missing := range []int{1, len(frame) / 2, len(frame) - 1} {
			decoder := NewDecoder(1 << 20)
			got, err := feed(decoder, frame[:len(frame)-missing], func() int { return len(frame) })
			if err != nil || got != nil || !decoder.Inside() {
				t.Errorf("%d of %d bytes: %d frames, %v, inside %v", len(frame)-missing, len(frame), len(got), err, decoder.Inside())
			}
		}
	}
}

func TestAFramesMemoryIsItsOwn(t *testing.T) {
	decoder := NewDecoder(1 << 20)
	first, _ := feed(decoder, specEvent(t), func() int { return 64 })
	if _, err := feed(decoder, bigFrame(5), func() int { return 64 }); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first[0], specEvent(t)) {
		t.Error("a later frame was written over an earlier one")
	}
}

func TestAStrangerIsRefusedByItsFirstFourBytes(t *testing.T) {
	_, err := feed(NewDecoder(1<<20), []byte("GET "), func() int { return 4 })
	if code(t, err) != wirecapnp.GoodbyeCode_protocolError && code(t, err) != wirecapnp.GoodbyeCode_frameTooLarge {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(err.Error(), `"GET "`) {
		t.Errorf("%q does not show the first bytes", err)
	}
	_, err = feed(NewDecoder(1<<20), append(specEvent(t), "GET / HTTP/1.1\r\n\r\n"...), func() int { return 1000 })
	if code(t, err); strings.Contains(err.Error(), "GET") {
		t.Errorf("%q: a peer that has sent a frame is no stranger", err)
	}
}

func TestARefusedHeaderTakesNoMemory(t *testing.T) {
	decoder := NewDecoder(MaxFrame)
	refuse := errors.New("no")
	n := copy(decoder.Buffer(), header(1<<30+4, 1, 0, 0))
	decoder.Received(n)
	allocated := testing.AllocsPerRun(1, func() {
		if _, _, err := decoder.Next(func(Header) error { return refuse }); !errors.Is(err, refuse) {
			t.Errorf("got %v", err)
		}
	})
	if allocated > 10 || decoder.large != nil {
		t.Errorf("%v allocations, %d bytes", allocated, len(decoder.large))
	}
}

func TestEncodeWritesTheTableOfManySegments(t *testing.T) {
	for _, count := range []int{1, 2, 3, 511, 512} {
		segments := make([][]byte, count)
		for i := range segments {
			segments[i] = bytes.Repeat([]byte{byte(i)}, 8*(i%3))
		}
		segments[0] = make([]byte, 8)
		built, _, err := capnp.NewMessage(capnp.MultiSegment(segments))
		if err != nil {
			t.Fatal(err)
		}
		frame, err := Encode(Request, 5, 1<<63, built)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckTable(frame); err != nil {
			t.Errorf("%d segments: %v", count, err)
		}
		if got, err := ParseHeader(frame, 1<<20); err != nil || got != (Header{Request, 5, 1 << 63, len(frame)}) {
			t.Errorf("%d segments: %v %v", count, got, err)
		}
		opened, err := Open(frame)
		if err != nil {
			t.Fatal(err)
		}
		for i, segment := range segments {
			found, err := opened.Segment(capnp.SegmentID(i))
			if err != nil || !bytes.Equal(found.Data(), segment) {
				t.Errorf("segment %d of %d differs: %v", i, count, err)
			}
		}
	}
	if _, err := Encode(Event, 1, 0, multi(t, 513)); err == nil {
		t.Error("513 segments were encoded")
	}
}

func multi(t *testing.T, count int) *capnp.Message {
	segments := make([][]byte, count)
	for i := range segments {
		segments[i] = make([]byte, 8)
	}
	built, _, err := capnp.NewMessage(capnp.MultiSegment(segments))
	if err != nil {
		t.Fatal(err)
	}
	return built
}

func TestReadingSharesTheFramesMemory(t *testing.T) {
	for _, count := range []int{1, 2} {
		frame, err := Encode(Event, 1, 0, multi(t, count))
		if err != nil {
			t.Fatal(err)
		}
		opened, err := Open(frame)
		if err != nil {
			t.Fatal(err)
		}
		segment, err := opened.Segment(0)
		if err != nil {
			t.Fatal(err)
		}
		if &segment.Data()[0] != &frame[bodyOffset(count)] {
			t.Errorf("%d segments: a copy was made", count)
		}
	}
}

func TestALongListOfBoolsIsRead(t *testing.T) {
	// The library counts each Bool as a word, of which a limit of the message's own size would know nothing.
	built, segment, err := capnp.NewMessage(capnp.SingleSegment(nil))
	if err != nil {
		t.Fatal(err)
	}
	list, err := capnp.NewBitList(segment, 4<<20)
	if err == nil {
		list.Set(4<<20-1, true)
		err = built.SetRoot(capnp.List(list).ToPtr())
	}
	if err != nil {
		t.Fatal(err)
	}
	frame, err := Encode(Event, 1, 0, built)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := Open(frame)
	if err != nil {
		t.Fatal(err)
	}
	root, err := opened.Root()
	if err != nil || !capnp.BitList(root.List()).At(4<<20-1) {
		t.Errorf("got %v", err)
	}
}

func TestAPointerCannotAmplifyAMessage(t *testing.T) {
	// A list of 2^29 - 1 Voids in a frame of 32 bytes.
	frame := make([]byte, 32)
	binary.LittleEndian.PutUint32(frame[20:], 1)
	binary.LittleEndian.PutUint64(frame[24:], 1|(1<<29-1)<<35)
	PutHeader(frame, Event, 1, 0)
	opened, err := Open(frame)
	if err != nil {
		t.Fatal(err)
	}
	if root, err := opened.Root(); err == nil {
		t.Errorf("a list of %d elements was read", root.List().Len())
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add(specEvent(f), 3)
	f.Add(bigFrame(9), 1)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), 100)
	f.Fuzz(func(t *testing.T, data []byte, piece int) {
		frames, err := feed(NewDecoder(1<<16), data, func() int { return max(1, piece) })
		whole, wholeErr := feed(NewDecoder(1<<16), data, func() int { return len(data) })
		if len(frames) != len(whole) || (err == nil) != (wholeErr == nil) {
			t.Errorf("%d frames and %v, but in one piece %d and %v", len(frames), err, len(whole), wholeErr)
		}
		for _, frame := range frames {
			if CheckTable(frame) != nil {
				continue
			}
			opened, err := Open(frame)
			if err != nil {
				t.Fatal(err)
			}
			if root, err := Root(opened); err == nil {
				_, _ = capnp.Canonicalize(root)
			}
		}
	})
}
