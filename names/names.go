// Package names says what a repository of models or datasets is called, what is in each of its commits, and which key says so.
//
// # Terms
//
// A Repo is a kind and a name, such as the model org/name. A Commit lists the files of a repository at one moment; it is known
// by forty hexadecimal digits, as the Hub's are. A revision is a branch, a tag or a commit's id. A Record says, signed by a key,
// that a revision of a Repo is a Commit.
//
// # What it does not do
//
// It keeps nothing, asks nobody and trusts no key: it reads, writes and checks. How names are found is the business of those
// who use it.
package names

import (
	"time"

	"github.com/ipfs/go-cid"
)

// Kind tells models from datasets and spaces, whose names are independent of each other.
type Kind uint8

// The kinds, as the Hub has them.
const (
	Model Kind = iota
	Dataset
	Space
)

// Repo names a repository.
type Repo struct {
	// Kind is what it holds.
	Kind Kind
	// Name is "owner/name", or "name" alone.
	Name string
}

// File is one file of a commit.
type File struct {
	// Path is its place in the repository: slashes between names, none of which is empty, "." or "..".
	Path string
	// Size is its length in bytes.
	Size int64
	// Root is the file's content. It is undefined while nobody here has seen all of it.
	Root cid.Cid
	// Blob is the id that git gives the file: for one kept as LFS, of its pointer. Forty hexadecimal digits.
	Blob string
	// SHA256 is the digest of the content, as 64 hexadecimal digits, of a file that the Hub keeps as LFS; else empty.
	SHA256 string
}

// Commit is what a repository holds at one moment.
type Commit struct {
	// Repo is whose commit it is.
	Repo Repo
	// ID is the commit's, forty hexadecimal digits.
	ID string
	// Time is when it was made, in whole milliseconds.
	Time time.Time
	// Dir is a directory that holds the files, for those who want them all at once. It may be undefined.
	Dir cid.Cid
	// Files are in the order of their paths, each of which occurs once.
	Files []File
}
