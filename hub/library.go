// Package hub serves repositories of models and datasets to clients of the Hugging Face Hub.
//
// # What it does not do
//
// It does not know where repositories come from: it is handed a [Library].
package hub

import (
	"context"
	"errors"
	"io"

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
