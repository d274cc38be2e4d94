package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"lahja-capn.example/peer/conformance/events"
)

const patience = 30 * time.Second

func root(t *testing.T) string {
	t.Helper()
	found, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(found, "tests/vectors")); err != nil {
		t.Skip("this is not in its repository: ", err)
	}
	return found
}

func TestVectors(t *testing.T) {
	var out bytes.Buffer
	passed, failed, err := RunVectors(filepath.Join(root(t), "tests/vectors"), &out)
	if err != nil {
		t.Fatal(err)
	}
	if failed > 0 || passed < 700 || out.Len() > 0 {
		t.Errorf("%d passed, %d failed\n%s", passed, failed, out.String())
	}
}

// A runner that passes everything would pass the test above.
func TestAWrongVectorFails(t *testing.T) {
	folder := t.TempDir()
	for file, damage := range map[string]func(string) string{
		"messages/count-highest":            func(text string) string { return strings.Replace(text, "18446744073709551615", "1", 1) },
		"values/everything-full":            func(text string) string { return strings.Replace(text, `"value":`, `"value": {}, "was":`, 1) },
		"frames/control-credit":             func(text string) string { return strings.Replace(text, "4096", "4097", 1) },
		"conversations/credit-held":         func(text string) string { return strings.Replace(text, `"number": "4"`, `"number": "5"`, 1) },
		"refusals/credit-exceeded-requests": func(text string) string { return strings.Replace(text, "creditExceeded", "tooSlow", 1) },
	} {
		source := filepath.Join(root(t), "tests/vectors", file)
		target := filepath.Join(folder, file)
		text, err := os.ReadFile(source + ".json")
		if err != nil {
			// Vectors may be renamed; then another one must stand here.
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			t.Fatal(err)
		}
		damaged := damage(string(text))
		if damaged == string(text) {
			t.Fatalf("%s: nothing was damaged", file)
		}
		if err := os.WriteFile(target+".json", []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(source + ".bin"); err == nil {
			if err := os.WriteFile(target+".bin", data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	var out bytes.Buffer
	passed, failed, err := RunVectors(folder, &out)
	if err != nil || passed != 0 || failed != 5 {
		t.Errorf("%d passed, %d failed, %v\n%s", passed, failed, err, out.String())
	}
}

func TestTypeIDsOfTheGeneratedCodeAreThoseOfTheRows(t *testing.T) {
	generated := map[string]uint64{
		"Inner":      events.Inner_TypeID,
		"Everything": events.Everything_TypeID,
		"Count":      events.Count_TypeID,
		"Blob":       events.Blob_TypeID,
		"Late":       events.Late_TypeID,
		"Evolving":   events.Evolving_TypeID,
		"Ask":        events.Ask_TypeID,
		"Answer":     events.Answer_TypeID,
	}
	rows := map[string]uint64{}
	for _, row := range events.Rows {
		rows[strings.TrimPrefix(row.Name, "conformance.capnp:")] = row.TypeID
	}
	if !reflect.DeepEqual(generated, rows) {
		t.Errorf("the code has %x, the rows have %x", generated, rows)
	}
}

// ids finds the type ids in what `capnp compile -ocapnp` prints of a schema, and in generated code.
func ids(t *testing.T, text, pattern string) map[string]uint64 {
	t.Helper()
	found := map[string]uint64{}
	for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		id, err := strconv.ParseUint(match[2], 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		found[match[1]] = id
	}
	return found
}

func TestTypeIDsOfTheAnnotatedCopyAreThoseOfTheSchema(t *testing.T) {
	if _, err := exec.LookPath("capnp"); err != nil {
		t.Skip("the capnp compiler is missing")
	}
	for schema, code := range map[string]string{
		"capnp/lahja_capn/wire.capnp":     "../internal/wirecapnp/wire.capnp.go",
		"tests/vectors/conformance.capnp": "events/conformance.capnp.go",
	} {
		printed, err := exec.Command("capnp", "compile", "-ocapnp", filepath.Join(root(t), schema)).Output()
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(code)
		if err != nil {
			t.Fatal(err)
		}
		wanted := ids(t, string(printed), `(?m)^ *(?:struct|enum) (\w+) @(0x[0-9a-f]+)`)
		got := ids(t, string(text), `(?m)^const (\w+)_TypeID = (0x[0-9a-f]+)`)
		if len(wanted) < 8 || !reflect.DeepEqual(got, wanted) {
			t.Errorf("%s: the code has %x, the schema has %x", schema, got, wanted)
		}
	}
}

func TestTheGeneratedCodeIsCurrent(t *testing.T) {
	command := os.Getenv("LAHJA_CAPN")
	if command == "" {
		command = filepath.Join(root(t), ".venv/bin/lahja-capn")
		if _, err := os.Stat(command); err != nil {
			command = "lahja-capn"
		}
	}
	for _, tool := range []string{"capnp", strings.Fields(command)[0]} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("not checked: ", err)
		}
	}
	folder := t.TempDir()
	generate := exec.Command(filepath.Join(root(t), "peers/go/scripts/generate.sh"), folder)
	generate.Env = append(os.Environ(), "LAHJA_CAPN="+command)
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, file := range []string{"internal/wirecapnp/wire.capnp.go", "conformance/events/conformance.capnp.go",
		"conformance/events/rows.go"} {
		wanted, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("..", file))
		if err != nil || !bytes.Equal(got, wanted) {
			t.Errorf("%s is not what the schema gives now: make generate. %v", file, err)
		}
	}
}

// running is the conformance program in this process.
type running struct {
	t     *testing.T
	input io.WriteCloser
	lines chan object
	code  chan int
	// passed has the lines that nobody has waited for yet.
	passed []object
}

func run(t *testing.T, args ...string) *running {
	t.Helper()
	in, input := io.Pipe()
	output, out := io.Pipe()
	r := &running{t: t, input: input, lines: make(chan object, 1000), code: make(chan int, 1)}
	go func() {
		r.code <- Main(append([]string{"peer"}, args...), in, out)
		_ = out.Close()
	}()
	go func() {
		scanner := bufio.NewScanner(output)
		scanner.Buffer(nil, 1<<24)
		for scanner.Scan() {
			line := object{}
			decoder := json.NewDecoder(bytes.NewReader(scanner.Bytes()))
			decoder.UseNumber()
			if err := decoder.Decode(&line); err != nil {
				t.Errorf("%q is no JSON: %v", scanner.Text(), err)
			}
			r.lines <- line
		}
		close(r.lines)
	}()
	t.Cleanup(func() { _ = input.Close() })
	return r
}

func (r *running) do(format string, args ...any) {
	r.t.Helper()
	if _, err := fmt.Fprintf(r.input, format+"\n", args...); err != nil {
		r.t.Fatal(err)
	}
}

// says waits for a line with this `is`. The lines before it stay: an answer that runs on beside the others may come at
// any time.
func (r *running) says(is string) object {
	r.t.Helper()
	for i, line := range r.passed {
		if line["is"] == is {
			r.passed = append(r.passed[:i:i], r.passed[i+1:]...)
			return line
		}
	}
	late := time.After(patience)
	for {
		select {
		case line, ok := <-r.lines:
			if !ok {
				r.t.Fatalf("the program ended without saying %s", is)
			}
			if line["is"] == is {
				return line
			}
			if line["is"] == "error" {
				r.t.Fatalf("it says %v, wanted %s", line, is)
			}
			r.passed = append(r.passed, line)
		case <-late:
			r.t.Fatalf("it does not say %s", is)
		}
	}
}

// two returns a server and a client that are up.
func two(t *testing.T, serverArgs ...string) (server, client *running) {
	t.Helper()
	folder, err := os.MkdirTemp("", "c")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	path := filepath.Join(folder, "s")
	server = run(t, append([]string{"--name", "server", "--serve", path}, serverArgs...)...)
	server.says("listening")
	client = run(t, "--name", "client", "--connect", path, "--expect", "server")
	server.says("up")
	client.says("up")
	return server, client
}

func (r *running) status(wanted func(object) bool) object {
	r.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		r.do(`{"do":"status"}`)
		status := r.says("status")
		if wanted(status) {
			return status
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("the status stays %v", status)
		}
	}
}

func TestTheProgramPassesEveryFieldAndAnswers(t *testing.T) {
	server, client := two(t)
	server.do(`{"do":"subscribe","types":["Everything","Late","Blob"]}`)
	server.says("subscribed")
	full, err := loadVector(filepath.Join(root(t), "tests/vectors"), "values", "everything-full")
	if err != nil {
		t.Fatal(err)
	}
	build, err := json.Marshal(full.facts["build"])
	if err != nil {
		t.Fatal(err)
	}
	client.do(`{"do":"broadcast","type":"Everything","value":%s}`, build)
	client.says("sent")
	if err := equal(server.says("received")["value"], full.facts["value"], ""); err != nil {
		t.Error(err)
	}
	client.do(`{"do":"broadcast","type":"Late","value":{"text":"<&>"}}`)
	if err := equal(server.says("received")["value"], object{"text": "<&>"}, ""); err != nil {
		t.Error(err)
	}
	client.do(`{"do":"blob","id":3,"size":1000}`)
	sum := 0
	for k := range 1000 {
		sum += (k*31 + 3) % 256
	}
	blob := server.says("received_blob")
	if fmt.Sprint(blob["id"]) != "3" || fmt.Sprint(blob["size"]) != "1000" || fmt.Sprint(blob["sum"]) != fmt.Sprint(sum) {
		t.Errorf("got %v, wanted a sum of %d", blob, sum)
	}
	server.do(`{"do":"serve_requests"}`)
	server.says("serving")
	client.do(`{"do":"request","number":"18446744073709551615","mode":"answer","timeout_ms":10000,"tag":"a"}`)
	if line := client.says("answered"); line["number"] != "18446744073709551614" || line["text"] != "twice 18446744073709551615" {
		t.Errorf("got %v", line)
	}
	client.do(`{"do":"request","number":"1","mode":"fail","timeout_ms":10000,"tag":"b"}`)
	if line := client.says("failed"); line["code"] != "handlerRaised" || line["type_name"] != "ValueError" || line["text"] != "asked to fail" {
		t.Errorf("got %v", line)
	}
	client.do(`{"do":"request","number":"1","mode":"silence","timeout_ms":20,"tag":"c"}`)
	client.says("timed_out")
	server.do(`{"do":"stop"}`)
	server.says("stopped")
	if code := <-server.code; code != 0 {
		t.Errorf("exit code %d", code)
	}
	if line := client.says("down"); line["code"] != "shutdown" || line["by_peer"] != true || line["peer"] != "server" {
		t.Errorf("got %v", line)
	}
	_ = client.input.Close()
	if code := <-client.code; code != 0 {
		t.Errorf("exit code %d at the end of the input", code)
	}
}

func TestTheProgramHoldsAndResumes(t *testing.T) {
	server, client := two(t, "--event-credit", "400")
	server.do(`{"do":"subscribe","types":["Count"]}`)
	server.says("subscribed")
	server.do(`{"do":"hold"}`)
	server.says("holding")
	client.do(`{"do":"count","from":5,"to":105,"tag":1}`)
	client.says("counted")
	status := client.status(func(s object) bool { return s["waiting_for_credit"] == true })
	if status["sent_events"] != json.Number("10") {
		t.Errorf("got %v, wanted 10 frames of 40 bytes for 400", status)
	}
	server.do(`{"do":"await_count","count":100,"tag":2}`)
	server.do(`{"do":"resume"}`)
	server.says("resumed")
	if line := server.says("count_reached"); line["in_order"] != true {
		t.Errorf("got %v", line)
	}
	server.do(`{"do":"unsubscribe","types":["Count"]}`)
	server.says("unsubscribed")
	client.says("peer_unsubscribed")
	client.do(`{"do":"count","from":0,"to":10,"tag":1}`)
	client.says("counted")
	if status := client.status(func(object) bool { return true }); status["sent_events"] != json.Number("100") {
		t.Errorf("got %v", status)
	}
}

func TestTheProgramGoesOnAfterABadCommand(t *testing.T) {
	server, _ := two(t)
	for _, command := range []string{`{"do":"dance"}`, `{"do":"broadcast","type":"Nothing","value":{}}`, `nonsense`, `{"do":1}`,
		`{"do":"blob","id":1,"size":-1}`, `{"do":"broadcast","type":"Everything","value":{"i8":"x"}}`, `{}`} {
		server.do("%s", command)
		if line := <-server.lines; line["is"] != "error" || line["text"] == "" {
			t.Errorf("%s: got %v", command, line)
		}
	}
	server.do(`{"do":"status"}`)
	server.says("status")
}

func TestABadCommandLineIsTwo(t *testing.T) {
	for _, args := range [][]string{{}, {"peer"}, {"vectors"}, {"peer", "--name", "x"},
		{"peer", "--name", "x", "--connect", "y"}, {"peer", "--name", "x y", "--serve", "z"}} {
		if code := Main(args, strings.NewReader(""), io.Discard); code != 2 {
			t.Errorf("%q: exit code %d", args, code)
		}
	}
}
