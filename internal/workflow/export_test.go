package workflow

// WithMemory makes a run read its memory below root instead of /sys/fs/cgroup.
func WithMemory(o *Options, root, proc string) { o.memory = findMemory(root, proc) }
