package peer

import (
	"net"
	"os"
	"syscall"
	"testing"
)

func TestWhatLiesInASocketIsSeenWithoutTakingIt(t *testing.T) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "")
		ends[i], err = net.FileConn(file)
		_ = file.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer ends[i].Close()
	}
	if readable(ends[0]) {
		t.Error("an empty socket is readable")
	}
	if _, err := ends[1].Write([]byte{7}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if !readable(ends[0]) {
			t.Error("a byte that waits is not seen")
		}
	}
	var got [1]byte
	if _, err := ends[0].Read(got[:]); err != nil || got[0] != 7 {
		t.Errorf("got %v, %v", got, err)
	}
	if err := ends[1].Close(); err != nil {
		t.Fatal(err)
	}
	if readable(ends[0]) {
		t.Error("an end of stream is taken for a sign of life")
	}
}
