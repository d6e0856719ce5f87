//go:build !unix

package netloop

import "syscall"

// Readable reports whether there is a Descriptor.
const Readable = false

// ReadDescriptor is never called.
func ReadDescriptor(uintptr, []byte) (int, syscall.Errno) { panic(errUnsupported) }

func write(uintptr, []byte, []byte) (int, syscall.Errno) { panic(errUnsupported) }
