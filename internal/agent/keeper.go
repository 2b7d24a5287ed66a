package agent

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/knownhosts"
	"github.com/longshore-run/longshore/internal/mirror"
	"github.com/longshore-run/longshore/internal/runner"
)

const (
	envKnownHosts = "LONGSHORE_GIT_KNOWN_HOSTS"
	envLearnHosts = "LONGSHORE_SOURCE_ACCEPT_NEW_HOSTS"
	// learnedName is the file of learned host keys, both in the working directory
	// and among what a job leaves.
	learnedName = "known_hosts"
)

// keeper is what an agent keeps for its jobs: the mirror of their repositories,
// and the SSH host keys that they met.
type keeper struct {
	mirror *mirror.Store    // nil for none
	hosts  *knownhosts.Book // nil when none are learned
}

func newKeeper(config *Config) (*keeper, error) {
	k := &keeper{}
	if config.LearnHosts {
		k.hosts = knownhosts.In(filepath.Join(config.WorkingDirectory, learnedName))
	}
	if config.MirrorDirectory == "" {
		return k, nil
	}
	var err error
	k.mirror, err = mirror.Open(config.MirrorDirectory, config.MirrorBytes)
	return k, err
}

// forRunner is the keeper for a runner, nil when nothing is kept.
func (k *keeper) forRunner() runner.Keeper {
	if k.mirror == nil && k.hosts == nil {
		return nil
	}
	return k
}

// Close lets go of what the keeper holds.
func (k *keeper) Close() {
	if k.mirror != nil {
		_ = k.mirror.Close() // a lock
	}
}

// entries is the folder of the mirror, for backends to show to jobs.
func (k *keeper) entries() string {
	if k.mirror == nil {
		return ""
	}
	return k.mirror.Dir()
}

// Give implements runner.Keeper.
func (k *keeper) Give(job *api.JobFile) {
	if k.mirror != nil {
		job.MirrorLimit = k.mirror.Limit()
	}
	if k.hosts == nil {
		return
	}
	job.Env = maps.Clone(job.Env)
	if job.Env == nil {
		job.Env = map[string]string{}
	}
	job.Env[envLearnHosts] = "true"
	if text, err := k.hosts.Text(); err == nil && text != "" {
		job.Env[envKnownHosts] = strings.TrimSpace(job.Env[envKnownHosts] + "\n" + text)
	}
}

// Take implements runner.Keeper.
func (k *keeper) Take(ctx context.Context, dir string, log *zap.Logger) {
	if k.mirror != nil {
		taken, err := k.mirror.Take(dir)
		if err != nil {
			log.Warn("part of what the job fetched is not in the mirror", zap.Error(err))
		}
		if taken != (mirror.Taken{}) {
			log.Info("mirror updated", zap.Int("added", taken.Added), zap.Int("used", taken.Used), zap.Int("damaged", taken.Dropped), zap.Int("evicted", taken.Evicted))
		}
	}
	if k.hosts == nil {
		return
	}
	// Not through a link: the job may have made one.
	lines, err := os.OpenFile(filepath.Join(dir, learnedName), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var added []string
	if err == nil {
		defer lines.Close()
		added, err = k.hosts.Learn(ctx, lines)
	}
	if len(added) > 0 {
		log.Info("SSH host keys learned", zap.Strings("keys", added))
	}
	if err != nil {
		log.Warn("SSH host keys that the job met are not kept", zap.Error(err))
	}
}
