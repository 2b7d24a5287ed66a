//go:build !linux

package pulumi

// Jobs run on Linux. This keeps the package building elsewhere.
func watch(int) (<-chan struct{}, func()) { return nil, func() {} }
