package contextstore

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// archiveLimit is how many bytes an archive of a context may have.
const archiveLimit = 10 << 20

// Export writes a context as the tar that `docker context import` reads: meta.json and tls/ENDPOINT/FILE.
func Export(w io.Writer, c Context, tls TLS) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	file := func(name string, mode int64, data []byte) error {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err := tw.Write(data)
		return err
	}
	folder := func(name string) error {
		return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o700})
	}
	if err := errors.Join(file("meta.json", 0o644, data), folder("tls")); err != nil {
		return err
	}
	for endpoint := range tls {
		if err := folder("tls/" + endpoint); err != nil {
			return err
		}
		for _, f := range tls.Files(endpoint) {
			if err := file("tls/"+endpoint+"/"+f, 0o600, tls[endpoint][f]); err != nil {
				return err
			}
		}
	}
	return tw.Close()
}

// Import reads a context from a tar or zip archive of up to 10 MiB, under a new name.
func Import(r io.Reader, name string) (Context, TLS, error) {
	var c Context
	data, err := io.ReadAll(io.LimitReader(r, archiveLimit+1))
	if err != nil {
		return c, nil, err
	}
	if len(data) > archiveLimit {
		return c, nil, fmt.Errorf("the archive of context %q is larger than %d MiB", name, archiveLimit>>20)
	}
	each := eachTar
	if bytes.HasPrefix(data, []byte("PK")) {
		each = eachZip
	}
	tls := TLS{}
	found := false
	err = each(data, func(entry string, content []byte) error {
		parts := strings.Split(path.Clean(entry), "/")
		switch {
		case len(parts) == 1 && parts[0] == "meta.json":
			found = true
			return json.Unmarshal(content, &c)
		case len(parts) == 3 && parts[0] == "tls" && plain(parts[1]) && plain(parts[2]):
			if tls[parts[1]] == nil {
				tls[parts[1]] = map[string][]byte{}
			}
			tls[parts[1]][parts[2]] = content
			return nil
		}
		return fmt.Errorf("unexpected entry %q: a context has meta.json and tls/ENDPOINT/FILE", entry)
	})
	if err == nil && !found {
		err = errors.New("it has no meta.json")
	}
	if err != nil {
		return c, nil, fmt.Errorf("cannot read the archive of context %q: %w", name, err)
	}
	c.Name = name
	if c.Metadata == nil {
		c.Metadata = map[string]any{}
	}
	if c.Endpoints == nil {
		c.Endpoints = map[string]map[string]any{}
	}
	return c, tls, nil
}

// plain tells that a word of an archive is a file's name and no way out of its folder.
func plain(word string) bool { return word != "" && word != "." && word != ".." }

func eachTar(data []byte, f func(name string, content []byte) error) error {
	for tr := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			continue
		case tar.TypeReg:
		default:
			return fmt.Errorf("entry %q is neither a file nor a folder", h.Name)
		}
		content, err := readEntry(tr, h.Name)
		if err != nil {
			return err
		}
		if err := f(h.Name, content); err != nil {
			return err
		}
	}
}

func eachZip(data []byte, f func(name string, content []byte) error) error {
	zr, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return err
	}
	left := int64(archiveLimit)
	for _, e := range zr.File {
		if e.FileInfo().IsDir() {
			continue
		}
		r, err := e.Open()
		if err != nil {
			return err
		}
		content, err := readEntry(r, e.Name)
		r.Close()
		if err != nil {
			return err
		}
		if left -= int64(len(content)); left < 0 {
			return fmt.Errorf("it holds more than %d MiB", archiveLimit>>20)
		}
		if err := f(e.Name, content); err != nil {
			return err
		}
	}
	return nil
}

// readEntry reads one entry of an archive; a compressed one may be larger than the archive.
func readEntry(r io.Reader, name string) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(r, archiveLimit+1))
	if err == nil && len(content) > archiveLimit {
		err = fmt.Errorf("entry %q is larger than %d MiB", name, archiveLimit>>20)
	}
	return content, err
}
