package settle

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMarksOfAnotherBootAreSuspect(t *testing.T) {
	dir := t.TempDir()
	m, suspects, err := Open(dir)
	if err != nil || len(suspects) != 0 {
		t.Fatal(suspects, err)
	}
	for _, n := range []string{"a", "b", "c"} {
		if err := m.Mark(n); err != nil {
			t.Fatal(err)
		}
	}
	m.Close()
	if err := os.WriteFile(filepath.Join(dir, "b"), []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	m, suspects, err = Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if len(suspects) != 1 || suspects[0] != "b" {
		t.Error(suspects)
	}
	if err := m.Clear("c"); err != nil {
		t.Error(err)
	}
	if err := m.Flush(); err != nil {
		t.Error(err)
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 1 || left[0].Name() != "b" {
		t.Error("a sync must clear what is settled, and only that:", left)
	}
	if err := m.Clear("b"); err != nil {
		t.Error(err)
	}
}
