package executor

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
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

const cacheName = "cache.json"

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
