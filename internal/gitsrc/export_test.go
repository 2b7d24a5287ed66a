package gitsrc

// CheckoutWith is Checkout with its waits shortened.
var CheckoutWith = start

// CleanURL returns what is left of a repository URL without its credentials.
func CleanURL(raw string) (string, error) {
	l, err := parseLocation(raw)
	if err != nil {
		return "", err
	}
	return l.String(), nil
}

// CredentialsFor returns user name and password that go to the host of raw.
func CredentialsFor(raw string, a Auth) (username, password string) {
	l, err := parseLocation(raw)
	if err != nil {
		return "", ""
	}
	cred := l.credentials(a)
	return cred.Username, cred.Password
}
