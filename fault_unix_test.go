//go:build linux || darwin

package websocket

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// descriptorChild tells a process of the test's own that it is the server
// whose descriptors run out.
const descriptorChild = "WEBSOCKET_TEST_DESCRIPTORS"

// A server without descriptors to accept with costs next to nothing, says so
// once a second, and serves again within a second of there being some.
func TestDescriptorsRunOut(t *testing.T) {
	if os.Getenv(descriptorChild) != "" {
		serveWithFewDescriptors()
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDescriptorsRunOut$")
	cmd.Env = append(os.Environ(), descriptorChild+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close() // which ends it
	r := bufio.NewReader(out)
	var addr string
	if _, err := fmt.Fscanln(r, &addr); err != nil {
		t.Fatal(err)
	}
	report := func() (cpu, now time.Duration, lines int) {
		t.Helper()
		fmt.Fprintln(in)
		if _, err := fmt.Fscanln(r, &cpu, &now, &lines); err != nil {
			t.Fatal(err)
		}
		return cpu, now, lines
	}

	// A busy machine makes all of it slow: what holds at one of a few attempts holds.
	for attempt := 1; ; attempt++ {
		err := runOut(t, addr, report)
		if err == nil {
			break
		}
		if attempt == 3 {
			t.Fatal(err)
		}
		t.Logf("attempt %d: %v", attempt, err)
	}
}

// runOut takes the server's descriptors, and gives them back.
func runOut(t *testing.T, addr string, report func() (cpu, now time.Duration, lines int)) error {
	_, _, before := report()
	var served, waiting []*peer
	for range 3 * spareDescriptors {
		p := newPeer(t, dialAddr(t, addr))
		defer p.nc.Close()
		p.send([]byte(peerRequest))
		p.nc.SetReadDeadline(time.Now().Add(patience))
		if len(served) < spareDescriptors/2 {
			p.wantBytes(peerAnswer)
			served = append(served, p)
		} else {
			waiting = append(waiting, p)
		}
	}
	eventually(t, "Accept has failed", func() bool { _, _, lines := report(); return lines > before })
	cpu, start, lines := report()
	const window = 3 * time.Second
	<-time.After(window) // it is what is measured, and not waited for
	cpuThen, then, linesThen := report()
	share := float64(cpuThen-cpu) / float64(then-start)
	t.Logf("without descriptors: %.2f%% of a core, %d lines in %v", 100*share, linesThen-lines, (then - start).Round(time.Millisecond))
	if share > 0.01 {
		return fmt.Errorf("without descriptors the server takes %.2f%% of a core, want 1%% at most", 100*share)
	}
	if got, most := linesThen-lines, int((then-start)/time.Second)+1; got > most {
		return fmt.Errorf("without descriptors the log got %d lines in %v, want %d at most", got, then-start, most)
	}

	for _, p := range served {
		p.nc.Close()
	}
	start = time.Duration(monotonic())
	last := waiting[len(waiting)-1]
	for _, p := range waiting[:len(waiting)-1] {
		go func() { // those ahead of it make room as soon as they are served
			io.ReadFull(p.nc, make([]byte, len(peerAnswer)))
			p.nc.Close()
		}()
	}
	last.wantBytes(peerAnswer)
	took := time.Duration(monotonic()) - start
	t.Logf("served again after %v", took.Round(time.Millisecond))
	if took > 2*time.Second { // a second, and what a busy machine takes
		return fmt.Errorf("served again after %v, want a second", took)
	}
	return nil
}

const spareDescriptors = 16

// serveWithFewDescriptors is the process of the server. It answers each line
// with its CPU time, the time and the lines in its log, and ends with its input.
func serveWithFewDescriptors() {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	fail(err)
	var limit syscall.Rlimit
	fail(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	limit.Cur = uint64(countDescriptors() + spareDescriptors)
	fail(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
	var book logBook
	s := &Server{Handler: Events{}, ErrorLog: book.logger()}
	go s.Serve(ln)
	fmt.Println(ln.Addr())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var usage syscall.Rusage
		fail(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
		fmt.Println(usage.Utime.Nano()+usage.Stime.Nano(), monotonic(), len(book.all()))
	}
	os.Exit(0)
}
