package control

import "context"

// Look does once what Run does at its intervals.
func (s *Service) Look(ctx context.Context) error {
	if err := s.dissolveClaims(ctx); err != nil {
		return err
	}
	return s.reap(ctx)
}
