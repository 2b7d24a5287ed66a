package docker

// VolumeName returns the name of the volume that holds the executor at path.
func VolumeName(path string) (string, error) { return newVolumes().nameFor(path) }
