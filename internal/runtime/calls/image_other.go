//go:build !amd64 && !arm64

package calls

// Supported tells whether there is an interpreter for this processor.
const Supported = false

// Image is nothing here.
func Image() []byte { return nil }
