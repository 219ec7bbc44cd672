// Package hub serves repositories of models and datasets to clients of the Hugging Face Hub: [Server] is an http.Handler that
// answers what those clients ask, out of a [Library].
//
// # Terms
//
// A repository, a revision, a commit and a file are what package names says. A Library is where they come from; [Published] is
// one of what was published under a name here or by peers, and [First] puts several behind each other. A small file is known by
// its git blob's id, and a large one, which the Hub keeps as LFS, by the SHA-256 of its bytes; so are their ETags.
//
// # What it does not do
//
// It does not know how peers are asked or how bytes travel: whoever makes a Published says. It writes nothing: there are no
// uploads, accounts, likes or downloads to count. It never redirects and never compresses, because clients rely on that.
package hub

import (
	"context"
	"errors"
	"io"
	"time"

	"dray/names"
)

// Library is where a Hub's repositories come from: what was published here, what peers have published, or an upstream that
// the swarm reads once. Implementations are safe for concurrent use.
type Library interface {
	// Commit returns what a revision of a repository is: a branch, a tag, or a commit's id. The error wraps
	// [ErrRepoNotFound], [ErrRevisionNotFound], [ErrGated] or [ErrUpstream].
	Commit(ctx context.Context, repo names.Repo, revision string) (*names.Commit, error)

	// Open returns the content of a file of a commit that this Library returned; it may still be arriving. The error wraps
	// [ErrEntryNotFound] or [ErrUpstream]. Ctx bounds the reading, too.
	Open(ctx context.Context, c *names.Commit, f names.File) (Content, error)
}

// Lister is an optional ability of a Library: to say what it has, for those who browse.
type Lister interface {
	// List returns what is known here, in the order of the repositories.
	List(ctx context.Context) ([]Listing, error)
}

// Listing is one repository of a Library.
type Listing struct {
	// Repo is which.
	Repo names.Repo
	// Refs are its branches and tags, by name, and Commits what is known of its history, newest first; the names of those are
	// empty.
	Refs, Commits []Ref
}

// Ref is a commit that something refers to.
type Ref struct {
	// Name is the branch's or tag's.
	Name string
	// Commit is the commit's id, and Time when it was made.
	Commit string
	Time   time.Time
}

// Content is a file of a repository. It is used by one goroutine. Read waits for what is still arriving.
type Content interface {
	io.ReadSeekCloser
}

// What a Library may not find.
var (
	// ErrRepoNotFound means that nobody who is trusted has a repository of that name.
	ErrRepoNotFound = errors.New("repository not found")
	// ErrRevisionNotFound means that the repository has no such branch, tag or commit.
	ErrRevisionNotFound = errors.New("revision not found")
	// ErrEntryNotFound means that the commit has no such file.
	ErrEntryNotFound = errors.New("file not found")
	// ErrGated means that the repository is there and whoever asks may not have it.
	ErrGated = errors.New("access to the repository is restricted")
	// ErrUpstream means that an upstream does not answer, or not in a way that makes sense, and nobody else has it.
	ErrUpstream = errors.New("upstream failed")
)
