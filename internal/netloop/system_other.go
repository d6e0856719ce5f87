//go:build !linux

package netloop

// Direct reports whether the functions below do anything here.
const Direct = false

// LimitUnsent sets nothing here.
func LimitUnsent(uintptr, int) error { return errUnsupported }

// Unsent knows nothing here.
func Unsent(uintptr) (int, error) { return 0, errUnsupported }

// Writev writes nothing here.
func Writev(uintptr, []byte, []byte) (int, error) { return 0, errUnsupported }
