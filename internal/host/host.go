// Package host says what tells one start of a machine from the next. The one
// function is BootID.
package host

import (
	"os"
	"strings"
)

// BootID names the start of the machine since which it runs: another after every
// boot, "" where the system does not tell.
func BootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
