package executor

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
	"github.com/longshore-run/longshore/internal/workflow"
)

// Names of steps, as services give them.
const (
	stepRestore = "Restore cache"
	stepInstall = "Download dependencies"
)

const (
	cacheName      = "cache.json"
	cacheStateName = "cache-state.json"
	// maxCacheState bounds what is read of the state: steps can write there. The
	// commands write some kilobytes.
	maxCacheState = 1 << 20
)

// CacheState is the part of the file at EnvCacheState that Run reads at the end
// of a job, to put it into its Report.
type CacheState struct {
	Outcomes api.CacheOutcomes `json:"outcomes,omitempty"`
}

// readCacheOutcomes returns what the commands of the cache have left at path, and
// nothing of what they cannot have written.
func readCacheOutcomes(path string) (api.CacheOutcomes, error) {
	content, err := readRegular(path, maxCacheState)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the job has used no cache
	}
	if err != nil {
		return nil, err
	}
	var state CacheState
	if err := json.Unmarshal(content, &state); err != nil {
		return nil, withoutValue(err)
	}
	return slices.DeleteFunc(state.Outcomes, func(o api.CacheOutcome) bool {
		return !o.Believable() || !api.KnownManager(o.Manager) || !o.Result.Known(o.Action)
	}), nil
}

// cacheOutcomes is readCacheOutcomes for the job: what is lost is a number.
func (e *execution) cacheOutcomes() api.CacheOutcomes {
	outcomes, err := readCacheOutcomes(filepath.Join(e.private, cacheStateName))
	if err != nil {
		e.Log.Warn("what the dependency cache did for the job is not counted", zap.Error(err))
	}
	return outcomes
}

// writeCache writes how the agent's dependency cache is reached where only this
// user can read it, for the commands that use it, and returns the path.
func (e *execution) writeCache() string {
	if e.file.Cache == nil {
		return ""
	}
	content, err := json.Marshal(e.file.Cache)
	path := filepath.Join(e.private, cacheName)
	if err == nil {
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil {
		e.Log.Warn("the job goes without the agent's dependency cache", zap.Error(err))
		return ""
	}
	return path
}

// A value between quotes with nothing that a shell would act on.
var (
	workDirFlag = regexp.MustCompile(`--workDir(?:=|\s+)(?:"([^"$\x60\\]+)"|([^"'$\x60\\;&|\s]+))(?:\s|$)`)
	repoDirFlag = regexp.MustCompile(`--repoDir(?:=|\s+)(?:"([^"$\x60\\]+)"|([^"'$\x60\\;&|\s]+))(?:\s|$)`)
)

// aroundInstall returns the commands of the agent's dependency cache for a
// definition that has no steps for it: they go around the step that installs the
// dependencies. Where that step is missing, or is not understood, there are none.
func aroundInstall(def api.JobDefinition, cache *api.JobCache, executable string) map[int]workflow.Around {
	if cache == nil || cache.Off != "" || executable == "" {
		return nil
	}
	install, workDir, repoDir, deletes := 0, "", "", false
	for i, s := range def.Steps {
		deletes = deletes || strings.Contains(s.Run, "--deleteAfterDestroy")
		switch {
		case s.Name == stepRestore:
			return nil
		case s.Name == stepInstall && i > 0:
			install, workDir = i, valueOf(workDirFlag, s.Run)
		case install == 0:
			if dir := valueOf(repoDirFlag, s.Run); dir != "" {
				repoDir = dir
			}
		}
	}
	if install == 0 || workDir == "" {
		return nil
	}
	command := func(verb string) []string {
		argv := []string{executable, "cache", verb, "--workDir=" + workDir, "--stackIdentity=" + cache.Stack}
		if repoDir != "" {
			argv = append(argv, "--repoDir="+repoDir)
		}
		return argv
	}
	around := workflow.Around{Before: command("restore")}
	if !deletes { // there will be no other job of a stack that is gone
		around.After = command("save")
	}
	return map[int]workflow.Around{install: around}
}

func valueOf(flag *regexp.Regexp, script string) string {
	match := flag.FindStringSubmatch(script)
	if match == nil {
		return ""
	}
	return match[1] + match[2]
}
