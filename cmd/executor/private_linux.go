package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// forbidReading keeps other processes of the same user from attaching to this
// one and reading its memory. Programs it starts are not affected.
func forbidReading() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("protect my memory: %w", err)
	}
	return nil
}
