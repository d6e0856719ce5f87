//go:build linux && !noloop

package netloop

import (
	"syscall"
	"unsafe"
)

// The sockets never block, so their system calls are short and go past the
// scheduler: one that is told of a call may give the processor away meanwhile,
// and the caller would wait for another with an event in its hands.

const epollET = 1 << 31

func epollNow(epfd int, events []syscall.EpollEvent) (n int, failed bool) {
	r, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	switch errno {
	case 0:
		return int(r), false
	case syscall.EINTR:
		return 0, false
	default:
		return 0, true
	}
}

func epollCtl(epfd, op, fd int, ev *syscall.EpollEvent) error {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(epfd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(ev)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func eventfd() (int, error) {
	r, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

// addOne makes an eventfd tell of itself. Nobody reads it, so that after 2^64 calls
// it would be full.
func addOne(fd int) {
	one := uint64(1)
	rawWrite(fd, (*[8]byte)(unsafe.Pointer(&one))[:])
}
