//go:build !linux

package pulumi

import "syscall"

// Jobs run on Linux. These keep the package building elsewhere.

func interruptWhenAlone(*syscall.SysProcAttr) {}

func watch(int) (<-chan struct{}, func()) { return nil, func() {} }
