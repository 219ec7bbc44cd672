package main

import (
	"context"
	"errors"
	"os"

	"dray/node"
)

// survey looks at what lies at the destination. It returns progress if all is there already, and an error if something
// else is.
func (g *getting) survey(_ context.Context) (*node.Progress, error) {
	_, err := os.Lstat(g.q.Output)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return nil, err
}

func (g *getting) whole(context.Context, *node.Node) (getOutcome, error) {
	return getOutcome{}, errors.ErrUnsupported
}
