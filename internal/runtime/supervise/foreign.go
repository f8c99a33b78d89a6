package supervise

// foreign says how another OCI runtime runs a container.
type foreign struct {
	Path string   `json:"path"`
	Args []string `json:"args,omitempty"`
	Root string   `json:"root"` // its state
}
