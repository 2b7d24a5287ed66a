package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"go.uber.org/zap"

	"github.com/longshore-run/longshore/internal/api"
)

// maxJobFile bounds the job file: a definition holds a thousand scripts at most,
// and the service bounds what a user may send.
const maxJobFile = 8 << 20

// jobFile is the job file once it was read.
type jobFile struct{ api.JobFile }

// takeJobFile reads the job file and removes it, so that no step finds it. A
// definition in it that cannot be read is defErr: the rest is enough to tell the
// service so.
func takeJobFile(path string, stdin io.Reader, log *zap.Logger) (file jobFile, defErr, err error) {
	content, err := readJobFile(path, stdin)
	if err != nil {
		return jobFile{}, nil, fmt.Errorf("job file: %w", err)
	}
	if path != fromStdin {
		if err := os.Remove(path); err != nil {
			log.Warn("job file cannot be removed: steps that run as this user can read it", zap.Error(err))
		}
	}
	var outer struct {
		*api.JobFile
		Definition json.RawMessage `json:"definition"`
	}
	outer.JobFile = &file.JobFile
	if err := json.Unmarshal(content, &outer); err != nil {
		return jobFile{}, nil, fmt.Errorf("job file %s: %w", path, withoutValue(err))
	}
	if len(outer.Definition) > 0 {
		if err := json.Unmarshal(outer.Definition, &file.Definition); err != nil {
			defErr = withoutValue(err)
		}
	}
	if file.ServiceURL == "" || file.JobID == "" || file.JobToken == "" {
		return jobFile{}, nil, fmt.Errorf("job file %s: serviceURL, jobID and jobToken must be there", path)
	}
	if file.ReportPath == "" {
		if path == fromStdin {
			return jobFile{}, nil, fmt.Errorf("job file %s: reportPath must be there", path)
		}
		file.ReportPath = filepath.Join(filepath.Dir(path), "report.json")
	}
	if file.SpoolDirectory == "" {
		file.SpoolDirectory = filepath.Join(filepath.Dir(file.ReportPath), api.SpoolName)
	}
	if err := os.MkdirAll(filepath.Dir(file.ReportPath), 0o700); err != nil {
		return jobFile{}, nil, fmt.Errorf("make the directory of the report: %w", err)
	}
	return file, defErr, nil
}

// fromStdin is the path that stands for standard input, where the job file ends
// with the input and there is nothing to remove.
const fromStdin = "-"

func readJobFile(path string, stdin io.Reader) ([]byte, error) {
	if path != fromStdin {
		return readRegular(path, maxJobFile)
	}
	if stdin == nil {
		stdin = os.Stdin
	}
	return readBounded(stdin, maxJobFile, "standard input")
}

func readRegular(path string, most int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return readBounded(f, most, path)
}

func readBounded(r io.Reader, most int64, name string) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > most {
		return nil, fmt.Errorf("%s is larger than %d MiB", name, most>>20)
	}
	return content, nil
}

// withoutValue keeps what JSON errors quote out of messages: it may be secret.
func withoutValue(err error) error {
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) {
		return fmt.Errorf("%s: want %s, not a JSON %s", wrongType.Field, wrongType.Type, strings.Fields(wrongType.Value + " value")[0])
	}
	return err
}

// secrets returns every value of the job that must not show in its log. A
// service that does not say which variables are secret (PROTOCOL 3) is met by
// guessing from their names, and so is what the agent's configuration adds.
func (f jobFile) secrets(environ []string) []string {
	out := []string{f.JobToken, f.OIDCToken}
	if f.Cache != nil {
		out = append(out, f.Cache.Token)
	}
	def := f.Definition
	for name, value := range def.Env {
		if slices.Contains(def.SecretEnv, name) || (def.SecretEnv == nil && looksSecret(name)) {
			out = append(out, value)
		}
	}
	for name, value := range f.Env {
		if slices.Contains(def.SecretEnv, name) || looksSecret(name) {
			out = append(out, value)
		}
	}
	for _, kv := range environ {
		if name, value, _ := strings.Cut(kv, "="); looksSecret(name) {
			out = append(out, value)
		}
	}
	if def.Image != nil && def.Image.Credentials != nil {
		out = append(out, def.Image.Credentials.Password.Value)
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == "" })
}

// secretWords make a variable's name look like that of a secret.
var secretWords = []string{
	"TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "PRIVATE_KEY", "CREDENTIALS", "ACCESS_KEY", "API_KEY", "SSH_KEY",
}

func looksSecret(name string) bool {
	if name == EnvOIDCFile {
		return false
	}
	name = strings.ToUpper(name)
	return slices.ContainsFunc(secretWords, func(word string) bool { return strings.Contains(name, word) })
}

// privateDir makes a directory that only this user can enter: beside the report
// where that is possible, else wherever temporary files go.
func privateDir(beside string) (string, error) {
	dir, err := os.MkdirTemp(beside, "executor-")
	if err == nil {
		return dir, nil
	}
	dir, tmpErr := os.MkdirTemp("", "longshore-")
	if tmpErr != nil {
		return "", fmt.Errorf("make a directory for scripts: %w", errors.Join(err, tmpErr))
	}
	return dir, nil
}

// flatten takes joined errors apart, so that each gets a line of its own.
func flatten(err error) []error {
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, flatten(e)...)
	}
	return out
}

func oneLine(err error) string {
	var texts []string
	for _, e := range flatten(err) {
		texts = append(texts, e.Error())
	}
	const most = 1000
	text := strings.Join(texts, "; ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}
