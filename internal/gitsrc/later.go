package gitsrc

// Later is what git needs later in a job to reach the server that a request was
// for: its address as git names it, and what goes there as credentials.
type Later struct {
	Scheme, Host string
	Auth         Auth // SSHKey in a form that other programs read
}

// Later reads the request. It connects to nothing.
func (r Request) Later() (Later, error) {
	at, err := parseLocation(r.URL)
	if err != nil {
		return Later{}, err
	}
	l := Later{Scheme: at.scheme, Host: at.host, Auth: at.credentials(r.Auth)}
	if at.port != "" {
		l.Host += ":" + at.port
	}
	if len(l.Auth.SSHKey) > 0 {
		l.Auth.SSHKey = normalKey(l.Auth.SSHKey)
	}
	return l, nil
}
