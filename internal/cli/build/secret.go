package build

import (
	"fmt"
	"os"
)

// secret is where one --secret comes from.
type secret struct{ file, env string }

// maxSecret is the largest secret that BuildKit takes, in bytes.
const maxSecret = 500 << 10

func (t *talk) secret(id string) ([]byte, error) {
	s, ok := t.secrets[id]
	if !ok {
		return nil, fmt.Errorf("there is no secret %q", id)
	}
	if s.env != "" {
		return []byte(os.Getenv(s.env)), nil
	}
	info, err := os.Stat(s.file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSecret {
		return nil, fmt.Errorf("invalid secret size %d, must be less than %d", info.Size(), maxSecret)
	}
	return os.ReadFile(s.file)
}
