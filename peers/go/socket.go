package peer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// retryEvery is how often Connect looks whether a socket has appeared.
const retryEvery = 20 * time.Millisecond

type listener struct {
	path   string
	socket *net.UnixListener
	inode  os.FileInfo
}

// Listen serves a Unix socket at path, which only this user may connect to, and returns when peers can connect. What a
// process that is gone has left there is replaced; where somebody still serves, it is an error.
func (e *Endpoint) Listen(path string) error {
	if probe, err := net.Dial("unix", path); err == nil {
		_ = probe.Close()
		return fmt.Errorf("endpoint %q cannot serve at %q: another process serves there. Choose another path, or stop it",
			e.config.Name, path)
	} else if errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("endpoint %q cannot serve at %q: %w; a socket's path has about 100 bytes at most", e.config.Name, path, err)
	}
	if found, err := os.Lstat(path); err == nil && found.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("endpoint %q cannot serve at %q: a file that is no socket is there", e.config.Name, path)
	}
	// Bound under a name of its own first: nobody can connect before the permissions are set, and one left by a dead
	// process is replaced in one step.
	folder, err := os.MkdirTemp(filepath.Dir(path), ".l")
	if err != nil {
		return fmt.Errorf("endpoint %q cannot serve at %q: %w", e.config.Name, path, err)
	}
	defer os.RemoveAll(folder)
	bound := filepath.Join(folder, "s")
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: bound, Net: "unix"})
	if err != nil {
		return fmt.Errorf("endpoint %q cannot serve at %q: binding %q: %w; a socket's path has about 100 bytes at most",
			e.config.Name, path, bound, err)
	}
	socket.SetUnlinkOnClose(false)
	err = os.Chmod(bound, 0o600)
	if err == nil {
		err = os.Rename(bound, path)
	}
	var inode os.FileInfo
	if err == nil {
		inode, err = os.Lstat(path)
	}
	if err != nil {
		_ = socket.Close()
		return fmt.Errorf("endpoint %q cannot serve at %q: %w", e.config.Name, path, err)
	}
	l := &listener{path: path, socket: socket, inode: inode}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		l.close()
		return ErrClosed
	}
	e.listeners = append(e.listeners, l)
	go e.serve(l)
	return nil
}

func (l *listener) close() {
	_ = l.socket.Close()
	if found, err := os.Lstat(l.path); err == nil && os.SameFile(found, l.inode) {
		_ = os.Remove(l.path)
	}
}

func (e *Endpoint) serve(l *listener) {
	for {
		socket, err := l.socket.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of file descriptors, most likely: those that come must wait until one is free.
			time.Sleep(retryEvery)
			continue
		}
		e.mu.Lock()
		if e.closed {
			_ = socket.Close()
		} else {
			e.run(socket, false, "", l.path)
		}
		e.mu.Unlock()
	}
}

// Connect connects to the endpoint called name that serves at path, and returns when events may pass. It waits for the
// socket to appear, for as long as ctx allows. If the two endpoints connect to each other at the same time, one
// connection survives, and both calls succeed. There is no reconnecting: look for PeerDown and call again.
func (e *Endpoint) Connect(ctx context.Context, name, path string) error {
	e.mu.Lock()
	connected := e.up[name] != nil
	e.mu.Unlock()
	if connected {
		return nil
	}
	socket, err := e.dial(ctx, path)
	if err != nil {
		return fmt.Errorf("%q could not connect to %q at %q: %w", e.config.Name, name, path, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		_ = socket.Close()
		return ErrClosed
	}
	if e.dialing[name] != nil {
		_ = socket.Close()
		return fmt.Errorf("%q is connecting to %q already", e.config.Name, name)
	}
	c := e.run(socket, true, name, path)
	survivor := time.Time{}
	err = e.wait(ctx, func() (bool, time.Time) {
		if e.up[name] != nil {
			return true, time.Time{}
		}
		if c.ending == nil {
			return false, time.Time{}
		}
		if c.ending.CodeName() != "duplicate" || e.closed {
			return true, time.Time{}
		}
		// The other connection survives, and is about to come up; only who serves can be reached by it.
		if survivor.IsZero() {
			survivor = time.Now().Add(e.config.HandshakeTimeout)
		}
		return len(e.listeners) == 0 || !time.Now().Before(survivor), survivor
	})
	if e.up[name] != nil {
		return nil
	}
	if err != nil {
		c.close(codeShutdown, "gave up connecting")
		return fmt.Errorf("%q could not connect to %q at %q: %w", e.config.Name, name, path, err)
	}
	return &ConnectError{Endpoint: e.config.Name, Peer: name, Path: path, Code: c.ending.CodeName(),
		ByPeer: c.ending.ByPeer, Text: c.ending.Text}
}

func (e *Endpoint) dial(ctx context.Context, path string) (net.Conn, error) {
	var dialer net.Dialer
	ticker := time.NewTicker(retryEvery)
	defer ticker.Stop()
	for {
		e.mu.Lock()
		closed := e.closed
		e.mu.Unlock()
		if closed {
			return nil, ErrClosed
		}
		socket, err := dialer.DialContext(ctx, "unix", path)
		if err == nil {
			return socket, nil
		}
		if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

// readable is true if bytes of the peer wait in the socket, or its end of stream does not.
func readable(socket net.Conn) bool {
	raw, ok := socket.(syscall.Conn)
	if !ok {
		return false
	}
	control, err := raw.SyscallConn()
	if err != nil {
		return false
	}
	found := false
	_ = control.Control(func(fd uintptr) {
		var one [1]byte
		n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		found = err == nil && n > 0
	})
	return found
}
