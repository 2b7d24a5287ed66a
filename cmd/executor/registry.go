package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/longshore-run/longshore/internal/api/client"
	"github.com/longshore-run/longshore/internal/gitsrc"
)

// registryScheme begins the URLs of templates that the service keeps.
const registryScheme = "registry://"

// registryTemplate asks the service where a template of its registry is to be had.
// The service gets the job's token; whoever keeps the archive gets nothing.
func (p *program) registryTemplate(ctx context.Context, sourceURL string) (gitsrc.Request, error) {
	t, err := client.ParseTemplate(sourceURL)
	if err != nil {
		return gitsrc.Request{}, fmt.Errorf("template %s: %w", sourceURL, err)
	}
	c, err := client.New(client.Options{
		BaseURL: p.serviceURL(), UserAgent: "longshore-executor/" + version,
		Retries: 3, RetryWait: time.Second, RetryMaxWait: 10 * time.Second,
	})
	if err != nil {
		return gitsrc.Request{}, fmt.Errorf("template %s: %w", sourceURL, err)
	}
	defer c.CloseIdle()
	archive, err := c.TemplateArchive(ctx, p.getenv("PULUMI_ACCESS_TOKEN"), t)
	if err != nil {
		return gitsrc.Request{}, fmt.Errorf("template %s: %w", sourceURL, err)
	}
	fmt.Fprintf(p.stdout, "template %s/%s/%s, version %s, comes from the registry\n", t.Source, t.Publisher, t.Name, t.Version)
	return gitsrc.Request{URL: archive, Archive: true, Anonymous: true}, nil
}

// serviceURL is the service as the job knows it.
func (p *program) serviceURL() string {
	for _, name := range []string{"LONGSHORE_SERVICE_URL", "PULUMI_SERVICE_URL", "PULUMI_BACKEND_URL"} {
		if value := p.getenv(name); strings.HasPrefix(value, "http") {
			return value
		}
	}
	return ""
}
