package child

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func threadAffinity() (unix.CPUSet, error) {
	var set unix.CPUSet
	err := unix.SchedGetaffinity(0, &set)
	return set, err
}

func restoreThreadAffinity(set unix.CPUSet) error { return unix.SchedSetaffinity(0, &set) }

func setThreadAffinity(tid int, cpus ...int) error {
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	if err := unix.SchedSetaffinity(tid, &set); err != nil {
		return fmt.Errorf("pin to CPUs %v: %w", cpus, err)
	}
	return nil
}

// Pin keeps every thread of this process, those to come too, on one CPU.
func Pin(cpu int) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := setThreadAffinity(tid, cpu); err != nil {
			return err
		}
	}
	return nil
}

// CPUTime returns what all threads of the process have run so far, user and
// system, in the scheduler's nanoseconds: the process's CPU clock, whose id is
// made of the PID as clock_getcpuclockid(3) does.
func (p *Process) CPUTime() (time.Duration, error) {
	const schedClock = 2 // CPUCLOCK_SCHED
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^p.PID)<<3|schedClock, &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", p.PID, err)
	}
	return time.Duration(ts.Nano()), nil
}

// RSS returns the resident anonymous memory of the process in bytes, the part
// that grows with connections.
func (p *Process) RSS() (int64, error) {
	return procKB(fmt.Sprintf("/proc/%d/status", p.PID), "RssAnon:")
}

// Descriptors returns how many file descriptors the process holds.
func (p *Process) Descriptors() (int, error) {
	d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID))
	return len(d), err
}

// Sockets returns how many of the process's descriptors are sockets.
func (p *Process) Sockets() (int, error) {
	dir := fmt.Sprintf("/proc/%d/fd", p.PID)
	entries, err := os.ReadDir(dir)
	n := 0
	for _, e := range entries {
		if to, err := os.Readlink(dir + "/" + e.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n, err
}

// procKB returns the value of a "Name:   123 kB" line in bytes.
func procKB(file, name string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	s := bufio.NewScanner(bytes.NewReader(b))
	for s.Scan() {
		if rest, ok := strings.CutPrefix(s.Text(), name); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("%s holds no line %s", file, name)
}

// KernelMemory is what the kernel holds for everyone.
type KernelMemory struct {
	Slab   int64 // bytes of kernel objects, sockets among them
	Socket int64 // bytes of TCP buffers
	Free   int64 // bytes available to processes
}

// Kernel reads the machine's kernel memory.
func Kernel() (KernelMemory, error) {
	var k KernelMemory
	var err error
	if k.Slab, err = procKB("/proc/meminfo", "Slab:"); err != nil {
		return k, err
	}
	if k.Free, err = procKB("/proc/meminfo", "MemAvailable:"); err != nil {
		return k, err
	}
	b, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return k, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if f[0] != "TCP:" {
			continue
		}
		for i := 1; i+1 < len(f); i += 2 {
			if f[i] == "mem" {
				pages, err := strconv.ParseInt(f[i+1], 10, 64)
				if err != nil {
					return k, err
				}
				k.Socket = pages * int64(os.Getpagesize())
			}
		}
	}
	return k, nil
}

// Memory is what a child says of itself after two collections.
type Memory struct {
	Heap       int64 // live bytes of the heap
	Stack      int64 // bytes of goroutine stacks
	Goroutines int
}

// Measure collects garbage, gives free pages back so that RSS means what is
// held, and reports.
func Measure() Memory {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return Memory{Heap: int64(m.HeapAlloc), Stack: int64(m.StackInuse), Goroutines: runtime.NumGoroutine()}
}

// Machine describes where the numbers come from.
func Machine() string {
	model := "unknown CPU"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	release := "?"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		release = unix.ByteSliceToString(u.Release[:])
	}
	return fmt.Sprintf("%s, %d CPUs, Linux %s", model, runtime.NumCPU(), strings.SplitN(release, "-", 2)[0])
}
