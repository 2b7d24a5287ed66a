package notice_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longshore-run/longshore/internal/notice"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is the metadata service of one cloud.
type service struct {
	*httptest.Server
	cloud string

	mu      sync.Mutex
	answers map[string]string // by path and query
	down    bool
	token   int // of aws: the one that counts
	looks   chan struct{}
}

// looked is asked once in each round of the cloud, as the last.
var looked = map[string]string{
	notice.AWS:   "/latest/meta-data/autoscaling/target-lifecycle-state",
	notice.GCP:   "/computeMetadata/v1/instance/maintenance-event",
	notice.Azure: "/metadata/scheduledevents?api-version=2020-07-01",
}

func newService(t *testing.T, cloud string) *service {
	s := &service{cloud: cloud, looks: make(chan struct{}), answers: map[string]string{}}
	switch cloud {
	case notice.GCP:
		s.answers["/computeMetadata/v1/instance/preempted"] = "FALSE"
		s.answers[looked[cloud]] = "NONE"
	case notice.Azure:
		s.answers["/metadata/instance/compute/name?api-version=2021-02-01&format=text"] = "vm-1"
		s.answers[looked[cloud]] = `{"DocumentIncarnation":1,"Events":[]}`
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *service) set(path, answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[path] = answer
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	status, text := s.answer(w.Header(), r)
	s.mu.Unlock()
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
	if r.URL.RequestURI() == looked[s.cloud] {
		select {
		case s.looks <- struct{}{}:
		case <-r.Context().Done():
		case <-time.After(10 * time.Millisecond): // nobody counts
		}
	}
}

// answer answers as strictly as the real services.
func (s *service) answer(header http.Header, r *http.Request) (status int, text string) {
	path := r.URL.RequestURI()
	switch {
	case s.down:
		return http.StatusServiceUnavailable, ""
	case s.cloud == notice.AWS && path == "/latest/api/token":
		if r.Method != http.MethodPut || r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") != "21600" {
			return http.StatusBadRequest, ""
		}
		return http.StatusOK, fmt.Sprintf("token-%d", s.token)
	case s.cloud == notice.AWS && r.Header.Get("X-aws-ec2-metadata-token") != fmt.Sprintf("token-%d", s.token):
		return http.StatusUnauthorized, ""
	case s.cloud == notice.GCP:
		if r.Header.Get("Metadata-Flavor") != "Google" {
			return http.StatusForbidden, ""
		}
		header.Set("Metadata-Flavor", "Google")
	case s.cloud == notice.Azure && r.Header.Get("Metadata") != "true":
		return http.StatusBadRequest, ""
	}
	text, ok := s.answers[path]
	if !ok {
		return http.StatusNotFound, "<html>not found</html>"
	}
	return http.StatusOK, text
}

// watch runs a Watcher; what it tells comes through the channel.
func watch(t *testing.T, s *service, cloud string) (told <-chan notice.Notice, stop func()) {
	t.Helper()
	w, err := notice.New(notice.Options{Cloud: cloud, BaseURL: s.URL + "/", Interval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	notices, done := make(chan notice.Notice, 10), make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx, func(n notice.Notice) { notices <- n })
	}()
	return notices, func() {
		cancel()
		<-done
	}
}

func azureEvent(kind, machine, notBefore, status string) string {
	return fmt.Sprintf(`{"DocumentIncarnation":2,"Events":[{"EventId":"e-1","EventType":%q,"ResourceType":"VirtualMachine","Resources":["other",%q],"EventStatus":%q,"NotBefore":%q,"Description":"why","EventSource":"Platform","DurationInSeconds":-1}]}`,
		kind, machine, status, notBefore)
}

func TestNotices(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 9, 18, 8, 22, 0, 0, time.UTC)
	const azure = "/metadata/scheduledevents?api-version=2020-07-01"
	for name, tc := range map[string]struct {
		cloud, path, answer string
		kind                notice.Kind // empty: no notice
		at                  time.Time
		soon                bool // at is reckoned from now
	}{
		"aws: spot interruption":       {notice.AWS, "/latest/meta-data/spot/instance-action", `{"action": "terminate", "time": "2026-09-18T08:22:00Z"}`, notice.Reclaimed, at, false},
		"aws: rebalance":               {notice.AWS, "/latest/meta-data/events/recommendations/rebalance", `{"noticeTime": "2026-09-18T08:22:00Z"}`, notice.Rebalance, time.Time{}, false},
		"aws: scale-in":                {notice.AWS, looked[notice.AWS], "Terminated", notice.ScaleIn, time.Time{}, false},
		"aws: into a warm pool":        {notice.AWS, looked[notice.AWS], "Warmed:Stopped", notice.ScaleIn, time.Time{}, false},
		"aws: in service":              {notice.AWS, looked[notice.AWS], "InService", "", time.Time{}, false},
		"aws: standby":                 {notice.AWS, looked[notice.AWS], "Standby", "", time.Time{}, false},
		"aws: what is no JSON":         {notice.AWS, "/latest/meta-data/spot/instance-action", "soon", "", time.Time{}, false},
		"gcp: preempted":               {notice.GCP, "/computeMetadata/v1/instance/preempted", "TRUE", notice.Reclaimed, time.Time{}, true},
		"gcp: maintenance that ends":   {notice.GCP, looked[notice.GCP], "TERMINATE_ON_HOST_MAINTENANCE", notice.Maintenance, time.Time{}, true},
		"gcp: live migration":          {notice.GCP, looked[notice.GCP], "MIGRATE_ON_HOST_MAINTENANCE", "", time.Time{}, false},
		"azure: preempt":               {notice.Azure, azure, azureEvent("Preempt", "vm-1", "Fri, 18 Sep 2026 08:22:00 GMT", "Scheduled"), notice.Reclaimed, at, false},
		"azure: terminate":             {notice.Azure, azure, azureEvent("Terminate", "VM-1", "Fri, 18 Sep 2026 08:22:00 GMT", "Scheduled"), notice.ScaleIn, at, false},
		"azure: reboot that began":     {notice.Azure, azure, azureEvent("Reboot", "vm-1", "", "Started"), notice.Maintenance, time.Time{}, true},
		"azure: redeploy":              {notice.Azure, azure, azureEvent("Redeploy", "vm-1", "Fri, 18 Sep 2026 08:22:00 GMT", "Scheduled"), notice.Maintenance, at, false},
		"azure: freeze":                {notice.Azure, azure, azureEvent("Freeze", "vm-1", "Fri, 18 Sep 2026 08:22:00 GMT", "Scheduled"), "", time.Time{}, false},
		"azure: of another machine":    {notice.Azure, azure, azureEvent("Preempt", "vm-2", "Fri, 18 Sep 2026 08:22:00 GMT", "Scheduled"), "", time.Time{}, false},
		"azure: an answer of no event": {notice.Azure, azure, `{}`, "", time.Time{}, false},
	} {
		for _, cloud := range []string{tc.cloud, notice.Auto} {
			t.Run(name+" by "+cloud, func(t *testing.T) {
				t.Parallel()
				s := newService(t, tc.cloud)
				told, stop := watch(t, s, cloud)
				defer stop()
				<-s.looks // quiet at first
				s.set(tc.path, tc.answer)
				if tc.kind != "" {
					n := <-told
					if n.Kind != tc.kind || n.Detail == "" {
						t.Errorf("told %+v, want %s and a detail", n, tc.kind)
					}
					if tc.soon && n.At.IsZero() || !tc.soon && !n.At.Equal(tc.at) {
						t.Errorf("the machine goes at %v, want %v (reckoned: %t)", n.At, tc.at, tc.soon)
					}
				}
				for range 3 {
					<-s.looks
				}
				select {
				case n := <-told:
					t.Errorf("told %+v", n)
				default:
				}
			})
		}
	}
}

func TestAServiceThatIsAwayForAWhile(t *testing.T) {
	t.Parallel()
	for _, cloud := range []string{notice.AWS, notice.GCP, notice.Azure} {
		t.Run(cloud, func(t *testing.T) {
			t.Parallel()
			s := newService(t, cloud)
			told, stop := watch(t, s, cloud)
			defer stop()
			<-s.looks
			s.mu.Lock()
			s.down = true
			s.token++ // and knows the tokens of before no more
			s.mu.Unlock()
			if cloud != notice.AWS { // which asks for nothing but a token now
				<-s.looks
			}
			s.mu.Lock()
			s.down = false
			s.mu.Unlock()
			switch cloud {
			case notice.AWS:
				s.set(looked[cloud], "Terminated")
			case notice.GCP:
				s.set("/computeMetadata/v1/instance/preempted", "TRUE")
			case notice.Azure:
				s.set(looked[cloud], azureEvent("Preempt", "vm-1", "", "Started"))
			}
			<-told
		})
	}
}

func TestWhatIsNoCloud(t *testing.T) {
	t.Parallel()
	if _, err := notice.New(notice.Options{Cloud: "moon"}); err == nil {
		t.Error("New() took a cloud that is none")
	}
}
