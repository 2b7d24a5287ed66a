package docker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"
	"go.uber.org/zap"
)

// pulled remembers the images that this agent has brought to the engine, and
// when each was used last, in a file that outlives the agent. Images that were
// there before are not the agent's, and are never removed.
type pulled struct {
	path string // empty: nothing outlives the agent
	now  func() time.Time

	mu     sync.Mutex
	images map[string]pulledImage // by id; nil until it is read
}

type pulledImage struct {
	Reference string    `json:"reference"`
	LastUsed  time.Time `json:"lastUsed"`
}

// recentUse keeps an image that a job may be about to be made of.
const recentUse = 10 * time.Minute

// used notes that a job is made of an image. ours says that this agent has just
// brought it; an image that it brought earlier is its own for good.
func (p *pulled) used(facts imageFacts, ours bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.read(); err != nil {
		return err
	}
	if _, known := p.images[facts.ID]; !known && !ours {
		return nil
	}
	p.images[facts.ID] = pulledImage{Reference: facts.Reference, LastUsed: p.now()}
	return p.write()
}

// oldest returns what is remembered, the least recently used first, with ids.
func (p *pulled) oldest() (ids []string, images map[string]pulledImage, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.read(); err != nil {
		return nil, nil, err
	}
	images = map[string]pulledImage{}
	for id, i := range p.images {
		ids, images[id] = append(ids, id), i
	}
	slices.SortFunc(ids, func(a, b string) int {
		return cmp.Or(images[a].LastUsed.Compare(images[b].LastUsed), cmp.Compare(a, b))
	})
	return ids, images, nil
}

func (p *pulled) forget(id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.images, id)
	return p.write()
}

// read reads the file once. One that is damaged is forgotten: its images become
// somebody else's, which is on the safe side.
func (p *pulled) read() error {
	if p.images != nil {
		return nil
	}
	images := map[string]pulledImage{}
	if p.path != "" {
		data, err := os.ReadFile(p.path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("list of pulled images: %w", err)
		}
		if err == nil && json.Unmarshal(data, &images) != nil {
			images = map[string]pulledImage{}
		}
	}
	p.images = images
	return nil
}

func (p *pulled) write() error {
	if p.path == "" {
		return nil
	}
	data, err := json.Marshal(p.images)
	if err != nil {
		return fmt.Errorf("list of pulled images: %w", err)
	}
	temporary := filepath.Join(filepath.Dir(p.path), "."+filepath.Base(p.path))
	err = os.WriteFile(temporary, data, 0o600)
	if err == nil {
		err = os.Rename(temporary, p.path)
	}
	if err != nil {
		return fmt.Errorf("list of pulled images: %w", err)
	}
	return nil
}

// noteImage notes the use of an image. What cannot be written costs disk space
// later, and no job.
func (b *Backend) noteImage(facts imageFacts, ours bool) {
	if err := b.pulled.used(facts, ours); err != nil {
		b.config.Log.Warn("the use of an image is not noted", zap.String("image", facts.Reference), zap.Error(err))
	}
}

// sweepImages removes pulled images, those first that were not used for longest,
// until the others fit into the budget. An image that a container was made of
// stays.
func (b *Backend) sweepImages(ctx context.Context, _ time.Time) (removed []string, err error) {
	if b.config.ImageBudget <= 0 {
		return nil, nil
	}
	ids, images, err := b.pulled.oldest()
	if err != nil {
		return nil, err
	}
	sizes, total := map[string]int64{}, int64(0)
	for _, id := range ids {
		call, cancel := b.call(ctx)
		found, err := b.client.ImageInspect(call, id)
		cancel()
		if errdefs.IsNotFound(err) {
			if err := b.pulled.forget(id); err != nil {
				return removed, err
			}
			continue
		}
		if err != nil {
			return removed, b.explain(ctx, fmt.Errorf("inspect image: %w", err))
		}
		sizes[id] = found.Size
		total += found.Size
	}
	for _, id := range ids {
		size, there := sizes[id]
		if total <= b.config.ImageBudget {
			break
		}
		if !there || b.pulled.now().Sub(images[id].LastUsed) < recentUse {
			continue
		}
		gone, err := b.removeImage(ctx, id, images[id].Reference)
		if err != nil {
			return removed, err
		}
		if !gone {
			continue
		}
		total -= size
		removed = append(removed, "image "+images[id].Reference)
		if err := b.pulled.forget(id); err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// removeImage removes an image, by its name where that still means it. It
// returns false for one that is in use.
func (b *Backend) removeImage(ctx context.Context, id, name string) (bool, error) {
	call, cancel := b.call(ctx)
	defer cancel()
	what := id
	if found, err := b.client.ImageInspect(call, name); err == nil && found.ID == id {
		what = name
	}
	_, err := b.client.ImageRemove(call, what, image.RemoveOptions{PruneChildren: true})
	switch {
	case err == nil, errdefs.IsNotFound(err):
		return true, nil
	case errdefs.IsConflict(err): // a container is made of it, or it has other names
		return false, nil
	}
	return false, b.explain(ctx, fmt.Errorf("remove image %s: %w", name, err))
}
