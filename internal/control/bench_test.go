package control_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/longshore-run/longshore/internal/control"
)

// BenchmarkClaim lets a hundred polls empty a queue.
func BenchmarkClaim(b *testing.B) {
	p := newPlane(b)
	pool := p.pool(b, "one")
	for i := range b.N {
		p.create(b, control.StackRef{Organization: org, Project: "shop", Stack: fmt.Sprint("s", i)}, `{"operation":"preview"}`)
	}
	b.ResetTimer()
	var pollers sync.WaitGroup
	for range 100 {
		pollers.Go(func() {
			for {
				work, err := p.Poll(b.Context(), pool, agent, 0)
				if err != nil {
					b.Error(err)
				}
				if work == nil {
					return
				}
			}
		})
	}
	pollers.Wait()
}
