package harness

import (
	"archive/tar"
	"bytes"
)

// toolTar is a root file system: the toolbox, links to it, and the few folders and files that programs expect.
func toolTar(program []byte) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(h tar.Header, data []byte) error {
		h.Size = int64(len(data))
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	}
	var errs []error
	for _, dir := range []string{"bin", "etc", "root", "tmp", "var"} {
		mode := int64(0o755)
		if dir == "tmp" {
			mode = 0o1777
		}
		errs = append(errs, add(tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: mode}, nil))
	}
	errs = append(errs, add(tar.Header{Name: "bin/toolbox", Typeflag: tar.TypeReg, Mode: 0o755}, program))
	for _, name := range commandNames {
		errs = append(errs, add(tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "toolbox", Mode: 0o777}, nil))
	}
	errs = append(errs,
		add(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000::/home/worker:/bin/sh\n")),
		add(tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:\nworker:x:1000:\n")),
		add(tar.Header{Name: "etc/notexec", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("text\n")),
		w.Close(),
	)
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), nil
}
