package conformance

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"lahja-capn.example/peer/internal/session"
	"lahja-capn.example/peer/internal/wire"
	"lahja-capn.example/peer/internal/wirecapnp"
)

// A vector is one file of tests/vectors, whose README.md is the norm of their format.
type vector struct {
	folder, name string
	facts        object
	data         []byte
}

var folders = []string{"messages", "values", "frames", "conversations", "refusals"}

// errSkipped: the vector needs what this runner does not have, see its `needs`.
var errSkipped = errors.New("skipped")

// RunVectors runs every vector in folder and says on out which ones failed.
func RunVectors(folder string, out io.Writer) (passed, failed int, err error) {
	skipped := 0
	for _, sub := range folders {
		files, err := filepath.Glob(filepath.Join(folder, sub, "*.json"))
		if err != nil {
			return 0, 0, err
		}
		if len(files) == 0 {
			return 0, 0, fmt.Errorf("no vectors in %s", filepath.Join(folder, sub))
		}
		for _, file := range files {
			v, err := loadVector(folder, sub, strings.TrimSuffix(filepath.Base(file), ".json"))
			if err == nil {
				err = v.run()
			}
			switch {
			case errors.Is(err, errSkipped):
				skipped++
				fmt.Fprintf(out, "skipped %s/%s: it needs %v\n", v.folder, v.name, v.facts["needs"])
			case err != nil:
				failed++
				fmt.Fprintf(out, "FAILED %s/%s: %v\n", sub, strings.TrimSuffix(filepath.Base(file), ".json"), err)
			default:
				passed++
			}
		}
	}
	return passed, failed, nil
}

func loadVector(root, folder, name string) (*vector, error) {
	text, err := os.ReadFile(filepath.Join(root, folder, name+".json"))
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	v := &vector{folder: folder, name: name}
	if err := decoder.Decode(&v.facts); err != nil {
		return nil, err
	}
	recipe, long := v.facts["recipe"].(array)
	v.facts = expand(v.facts).(object)
	switch {
	case long:
		err = guarded(func() {
			for _, part := range recipe {
				part := expand(to[object](part))
				if text, ok := part.(object); ok {
					part = text["hex"]
				}
				v.data = append(v.data, toData(part)...)
			}
		})
	case folder != "values":
		v.data, err = os.ReadFile(filepath.Join(root, folder, name+".bin"))
	}
	return v, err
}

// expand replaces what stands in place of a long Data or Text.
func expand(v any) any {
	switch value := v.(type) {
	case object:
		if count, ok := value["times"].(json.Number); ok && len(value) == 2 {
			n := must(count.Int64())
			for _, key := range []string{"repeat", "repeat_text"} {
				if text, ok := value[key].(string); ok {
					return strings.Repeat(text, int(n))
				}
			}
		}
		expanded := object{}
		for name, content := range value {
			expanded[name] = expand(content)
		}
		return expanded
	case array:
		expanded := array{}
		for _, content := range value {
			expanded = append(expanded, expand(content))
		}
		return expanded
	}
	return v
}

func (v *vector) run() (err error) {
	needs, _ := v.facts["needs"].(array)
	problem := guarded(func() {
		switch {
		case len(needs) == 1 && needs[0] == "endpoint" && v.folder == "refusals" && v.facts["role"] == "acceptor":
			err = v.runEndpoint()
			return
		case len(needs) > 0:
			err = errSkipped
			return
		}
		switch v.folder {
		case "messages":
			err = v.runMessage()
		case "values":
			err = v.runValue()
		case "frames":
			err = v.runFrame()
		default:
			err = v.runScript(len(v.data) + 1)
			if err == nil {
				piece := 1
				if len(v.data) > 10_000 {
					piece = 4093
				}
				if err = v.runScript(piece); err != nil {
					err = fmt.Errorf("in pieces: %w", err)
				}
			}
		}
	})
	return errors.Join(err, problem)
}

// readFrame reads the value of a frame's message.
func readFrame(name string, frame []byte) (object, error) {
	opened, err := wire.Open(frame)
	if err != nil {
		return nil, err
	}
	root, err := wire.Root(opened)
	if err != nil {
		return nil, err
	}
	return ReadValue(name, root)
}

func (v *vector) runMessage() error {
	frame := append(make([]byte, wire.HeaderSize), v.data...)
	if err := wire.CheckTable(frame); err != nil {
		return err
	}
	opened := must(wire.Open(frame))
	if err := equal(number(int32(opened.NumSegments())), v.facts["segments"], "segments"); err != nil {
		return err
	}
	if v.facts["schema"] == "wire" {
		data, err := wirecapnp.Opaque(must(wire.Root(opened))).Data()
		check(err)
		return equal(object{"data": hex.EncodeToString(data)}, v.facts["value"], "")
	}
	value, err := readFrame(to[string](v.facts["type"]), frame)
	if v.facts["unreadable"] == true {
		return nil // it ended, and so quickly that we are here
	}
	if err != nil {
		return err
	}
	return equal(value, v.facts["value"], "")
}

func (v *vector) runValue() error {
	name := to[string](v.facts["type"])
	frame := must(frameOf(name, to[object](v.facts["build"]), wire.Event, 1, 0))
	return equal(must(readFrame(name, frame)), v.facts["value"], "")
}

func (v *vector) runFrame() error {
	decoder := wire.NewDecoder(64 << 20)
	var header wire.Header
	var frame []byte
	rest := v.data
	for frame == nil {
		n := copy(decoder.Buffer(), rest)
		if n == 0 {
			return errors.New("the frame is not whole")
		}
		decoder.Received(n)
		rest = rest[n:]
		var err error
		if header, frame, err = decoder.Next(func(wire.Header) error { return nil }); err != nil {
			return err
		}
	}
	check(wire.CheckTable(frame))
	opened := must(wire.Open(frame))
	err := errors.Join(
		equal(number(header.WireID), v.facts["wire_id"], "wire_id"),
		equal(header.Kind.String(), v.facts["kind"], "kind"),
		equal(u64(header.Correlation), v.facts["correlation"], "correlation"),
		equal(number(int32(opened.NumSegments())), v.facts["segments"], "segments"),
		equal(number(int32(header.Size)), number(int32(len(v.data))), "size"),
	)
	if err != nil {
		return err
	}
	if header.Kind == wire.Control {
		name, value := showControl(must(session.DecodeControl(frame)))
		if err := equal(object{name: value}, v.facts["control"], ""); err != nil || v.facts["read_only"] == true {
			return err
		}
		written := session.EncodeControl(buildControl(to[object](v.facts["control"])))
		name, value = showControl(must(session.DecodeControl(written)))
		return errors.Join(
			equal(hex.EncodeToString(written[4:16]), hex.EncodeToString(v.data[4:16]), "the header written"),
			equal(object{name: value}, v.facts["control"], "read again"),
		)
	}
	name := to[string](v.facts["type"])
	if err := equal(must(readFrame(name, frame)), v.facts["value"], ""); err != nil {
		return err
	}
	written := must(frameOf(name, to[object](v.facts["value"]), header.Kind, header.WireID, header.Correlation))
	return errors.Join(
		equal(hex.EncodeToString(written[4:16]), hex.EncodeToString(v.data[4:16]), "the header written"),
		equal(must(readFrame(name, written)), v.facts["value"], "read again"),
	)
}

// equal says where two JSON values first differ.
func equal(got, wanted any, where string) error {
	switch want := wanted.(type) {
	case object:
		have, ok := got.(object)
		if !ok {
			break
		}
		for name := range have {
			if _, ok := want[name]; !ok {
				return fmt.Errorf("%s.%s: not wanted", where, name)
			}
		}
		for name := range want {
			value, ok := have[name]
			if !ok {
				return fmt.Errorf("%s.%s: missing", where, name)
			}
			if err := equal(value, want[name], where+"."+name); err != nil {
				return err
			}
		}
		return nil
	case array:
		have, ok := got.(array)
		if !ok {
			break
		}
		if len(have) != len(want) {
			return fmt.Errorf("%s: %d elements, wanted %d", where, len(have), len(want))
		}
		for i := range want {
			if err := equal(have[i], want[i], fmt.Sprintf("%s[%d]", where, i)); err != nil {
				return err
			}
		}
		return nil
	default:
		switch got.(type) {
		case object, array:
		default:
			if got == wanted {
				return nil
			}
		}
	}
	return fmt.Errorf("%s: got %.200v, wanted %.200v", where, got, wanted)
}
