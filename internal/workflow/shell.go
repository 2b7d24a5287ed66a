package workflow

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// findShell returns the command line that runs a script, without the script's
// path. Where bash is missing and may be replaced, it answers sh and a note for
// the log.
func findShell(p Plan, env map[string]string, dir string) (argv []string, note string, err error) {
	program := lookPath(p.Shell[0], env["PATH"], dir)
	if program != "" {
		return append([]string{program}, p.Shell[1:]...), "", nil
	}
	if p.ShellIsDefault {
		if sh := lookPath("sh", env["PATH"], dir); sh != "" {
			return []string{sh}, "bash is not installed here, using sh", nil
		}
	}
	return nil, "", fmt.Errorf("the shell %q is not installed here: use an image that has it, or change the shell in the deployment's options", p.Shell[0])
}

// scriptName gives the script the ending that PowerShell insists on.
func scriptName(shell string, index int) string {
	if base := filepath.Base(shell); base == "pwsh" || base == "powershell" {
		return fmt.Sprintf("step-%d.ps1", index)
	}
	return fmt.Sprintf("step-%d.sh", index)
}

// lookPath looks for a program along the PATH of the step, not of this process.
// It returns "" when there is none.
func lookPath(program, path, dir string) string {
	if strings.Contains(program, "/") {
		if !filepath.IsAbs(program) {
			program = filepath.Join(dir, program)
		}
		if isExecutable(program) {
			return program
		}
		return ""
	}
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	for _, d := range filepath.SplitList(path) {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		if p := filepath.Join(d, program); isExecutable(p) {
			return p
		}
	}
	return ""
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
