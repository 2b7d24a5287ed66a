package rig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// Machine says where and when a figure was measured.
func Machine(ctx context.Context) string {
	parts := []string{time.Now().UTC().Format("2006-01-02"), fmt.Sprintf("%d cores", runtime.NumCPU()), runtime.GOOS + "/" + runtime.GOARCH}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel, _, _ := strings.Cut(strings.TrimSpace(string(b)), "-")
		parts = append(parts, "kernel "+kernel)
	}
	if out, err := exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}").Output(); err == nil {
		parts = append(parts, "Docker "+strings.TrimSpace(string(out)))
	}
	parts = append(parts, runtime.Version())
	if out, err := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD").Output(); err == nil {
		parts = append(parts, "at "+strings.TrimSpace(string(out)))
	}
	return strings.Join(parts, ", ")
}
