package blob

import "io"

// Kept reads the bytes that an earlier transfer left, from 0 to Offset. It is for use before the first
// Write, Commit or Close.
func (w *Writer) Kept() io.Reader { return io.NewSectionReader(w.f, 0, w.offset) }
