package edge

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// shelf is a directory of leaves: each in a file whose name is the leaf's multihash in hexadecimal, in one of 256
// directories by its last byte. A file is there whole or not at all, as far as this process is concerned; after a
// loss of power it may be anything, so what an earlier process left is hashed before it is used. Its methods may be
// called concurrently, for different leaves.
type shelf struct{ dir string }

const partial = ".part"

func openShelf(dir string) (shelf, error) {
	s := shelf{dir: dir}
	return s, os.MkdirAll(dir, 0o700)
}

func (s shelf) path(key string) string {
	name := hex.EncodeToString([]byte(key))
	return filepath.Join(s.dir, name[len(name)-2:], name)
}

// put writes a leaf.
func (s shelf) put(key string, data []byte) error {
	path := s.path(key)
	err := writeWhole(path, data)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.Mkdir(filepath.Dir(path), 0o700); err == nil || errors.Is(err, fs.ErrExist) {
			err = writeWhole(path, data)
		}
	}
	return err
}

// writeWhole writes a file under a name for the time being, and then gives it its own.
func writeWhole(path string, data []byte) error {
	if err := os.WriteFile(path+partial, data, 0o600); err != nil {
		_ = os.Remove(path + partial) // the first error says more
		return err
	}
	return os.Rename(path+partial, path)
}

// open returns a leaf's file, at its start.
func (s shelf) open(key string) (*os.File, error) { return os.Open(s.path(key)) }

// remove deletes a leaf. One that is being read stays readable for whoever has it open.
func (s shelf) remove(key string) error {
	err := os.Remove(s.path(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// all calls each with every leaf and its size, and removes what is no leaf.
func (s shelf) all(each func(key string, size int64)) error {
	dirs, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if !d.IsDir() || len(d.Name()) != 2 {
			continue
		}
		files, err := os.ReadDir(filepath.Join(s.dir, d.Name()))
		if err != nil {
			return err
		}
		for _, f := range files {
			path := filepath.Join(s.dir, d.Name(), f.Name())
			key, err := hex.DecodeString(f.Name())
			info, ierr := f.Info()
			if err != nil || ierr != nil || !strings.HasSuffix(f.Name(), d.Name()) || !info.Mode().IsRegular() {
				_ = os.RemoveAll(path) // what stays is looked at again at the next start
				continue
			}
			each(string(key), info.Size())
		}
	}
	return nil
}
