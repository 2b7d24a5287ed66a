//go:build !linux

package workflow

type memoryLimit struct{}

func findMemoryLimit() memoryLimit { return memoryLimit{} }

func (memoryLimit) kills() int64 { return 0 }

func (memoryLimit) String() string { return "" }
