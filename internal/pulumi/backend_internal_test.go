package pulumi

import (
	"os"
	"testing"
)

func TestBackendURL(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"/home/u/.pulumi/credentials.json": `{"current":"file:///login"}`,
		"/custom/credentials.json":         `{"current":"s3://custom"}`,
		"/repo/Pulumi.yaml":                "name: a\nbackend:\n  url: gs://project\n",
		"/plain/Pulumi.yaml":               "name: a\nruntime: yaml\n",
		"/broken/Pulumi.yaml":              "name: [\n",
		"/json/Pulumi.json":                `{"name":"a","backend":{"url":"azblob://x"}}`,
	}
	read := func(path string) ([]byte, error) {
		content, ok := files[path]
		if !ok {
			return nil, os.ErrNotExist
		}
		return []byte(content), nil
	}
	for name, c := range map[string]struct {
		env  []string
		dir  string
		want string
	}{
		"the environment wins":              {[]string{"PULUMI_BACKEND_URL=https://x", "HOME=/home/u"}, "/repo", "https://x"},
		"then the project file":             {[]string{"HOME=/home/u"}, "/repo", "gs://project"},
		"which is looked for upwards":       {[]string{"HOME=/home/u"}, "/repo/a/b", "gs://project"},
		"and may be JSON":                   {[]string{"HOME=/home/u"}, "/json", "azblob://x"},
		"then the login":                    {[]string{"HOME=/home/u"}, "/plain", "file:///login"},
		"of another PULUMI_HOME":            {[]string{"HOME=/home/u", "PULUMI_HOME=/custom"}, "/plain", "s3://custom"},
		"a broken project file is no guess": {nil, "/broken", ""},
		"nothing says":                      {[]string{"HOME=/nobody"}, "/plain", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := backendURL(c.env, c.dir, read); got != c.want {
				t.Errorf("backendURL = %q, want %q", got, c.want)
			}
		})
	}
}

func TestSecretsInBackendURLsAreNotShown(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"s3://bucket/path?accessKey=x":  "s3://bucket/path",
		"postgres://u:p@host/db":        "postgres://host/db",
		"file://~":                      "file://~",
		"azblob://c?storage_account=ab": "azblob://c",
	} {
		if got := withoutUser(in); got != want {
			t.Errorf("withoutUser(%q) = %q, want %q", in, got, want)
		}
	}
}
