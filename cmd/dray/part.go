package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"dray/exchange"
	"dray/node"
	"dray/tensor"
)

// partOptions are the flags with which get gets part of a model.
type partOptions struct {
	tensors []string
	tp      string
	axes    []string
	arch    string
	kvHeads int64
	sparse  bool
}

func (o *partOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&o.tensors, "tensors", nil,
		"get only tensors with such names, such as 'model.layers.[0-7].*' (repeatable)")
	f.StringVar(&o.tp, "tp", "", "get what RANK of WORLD tensor-parallel ranks needs, such as 0/8")
	f.StringArrayVar(&o.axes, "tp-axis", nil,
		"how tensors are split for --tp: 'PATTERN=AXIS', 'PATTERN=AXIS:1,1' if parts are fused, or 'PATTERN=replicated' (repeatable)")
	f.StringVar(&o.arch, "tp-arch", "", "architecture whose rules --tp follows (default: as config.json says, else like llama)")
	f.Int64Var(&o.kvHeads, "tp-kv-heads", 0, "number of key/value heads, for --tp (default: as config.json says)")
	f.BoolVar(&o.sparse, "sparse", false, "keep each tensor where it is in the file, with holes for the rest")
	_ = c.RegisterFlagCompletionFunc("tp-arch", cobra.FixedCompletions(tensor.Architectures(), cobra.ShellCompDirectiveNoFileComp))
}

// partRequest asks for part of a model.
type partRequest struct {
	Tensors []string `json:"tensors,omitempty"`
	Rank    int64    `json:"rank,omitempty"`
	World   int64    `json:"world,omitempty"`
	KVHeads int64    `json:"kv_heads,omitempty"`
	Axes    []string `json:"axes,omitempty"`
	Arch    string   `json:"arch,omitempty"`
	Sparse  bool     `json:"sparse,omitempty"`
	Layers  bool     `json:"layers,omitempty"`
}

// request returns what the flags ask for; nil when they ask for the whole.
func (o *partOptions) request(order string) (*partRequest, error) {
	if len(o.tensors) == 0 && o.tp == "" {
		switch {
		case len(o.axes) > 0 || o.arch != "" || o.kvHeads != 0:
			return nil, usagef("--tp-axis, --tp-arch and --tp-kv-heads say how --tp splits; give it as well, as in --tp 0/8")
		case o.sparse:
			return nil, usagef("--sparse leaves out what is not selected; select with --tensors or --tp")
		}
		return nil, nil
	}
	q := &partRequest{
		Tensors: o.tensors, KVHeads: o.kvHeads, Axes: o.axes, Arch: o.arch, Sparse: o.sparse, Layers: order == orderLayers,
	}
	for _, text := range o.tensors {
		if _, err := tensor.ParsePattern(text); err != nil {
			return nil, usagef("%w", cause(err))
		}
	}
	if o.tp != "" {
		rank, world, ok := strings.Cut(o.tp, "/")
		var err1, err2 error
		q.Rank, err1 = strconv.ParseInt(rank, 10, 64)
		q.World, err2 = strconv.ParseInt(world, 10, 64)
		if !ok || err1 != nil || err2 != nil || q.Rank < 0 || q.Rank >= q.World {
			return nil, usagef("--tp %q is no rank; right is RANK/WORLD with ranks from 0, such as 0/8 for the first of eight", clip(o.tp))
		}
	}
	for _, text := range o.axes {
		if _, err := tensor.ParseTPRule(text); err != nil {
			return nil, usagef("--tp-axis %w", cause(err))
		}
	}
	known := tensor.Architectures()
	if o.arch != "" && !slices.Contains(known, o.arch) {
		return nil, usagef("there are no rules for the architecture %q%s", clip(o.arch),
			suggest(o.arch, known, "there are rules for "+strings.Join(known, ", ")))
	}
	if o.kvHeads < 0 {
		return nil, usagef("--tp-kv-heads %d is negative", o.kvHeads)
	}
	return q, nil
}

// name returns what the result is called when the user does not say, given what the whole is called.
func (q *partRequest) name(whole string) string {
	if q.Sparse {
		return whole
	}
	stem := whole
	if tensor.FormatOf(whole) != "" {
		stem = strings.TrimSuffix(whole, path.Ext(whole))
	}
	if q.World > 0 {
		return fmt.Sprintf("%s.rank-%d-of-%d.safetensors", stem, q.Rank, q.World)
	}
	return stem + ".part.safetensors"
}

func (q *partRequest) selection() (node.Selection, error) {
	s := node.Selection{
		Patterns: q.Tensors, Architecture: q.Arch, Sparse: q.Sparse,
		TP: tensor.TP{Rank: q.Rank, World: q.World, KVHeads: q.KVHeads},
	}
	if q.Layers {
		s.Order = tensor.ByLayers
	}
	for _, text := range q.Axes {
		r, err := tensor.ParseTPRule(text)
		if err != nil {
			return s, usagef("--tp-axis %w", cause(err))
		}
		s.Rules = append(s.Rules, r)
	}
	return s, nil
}

// part gets the selected tensors.
func (g *getting) part(ctx context.Context, q *partRequest) (getOutcome, error) {
	n, offline, closeNode, err := g.h.reach(g.t.peers)
	if err != nil {
		return getOutcome{}, err
	}
	defer closeNode()
	selection, err := q.selection()
	if err != nil {
		return getOutcome{}, err
	}
	cfg := node.PartConfig{
		TensorsConfig: node.TensorsConfig{Root: g.t.root, Peers: g.t.peers},
		Selection:     selection, Path: g.q.Output, Replace: g.q.Force, Origin: g.q.onBehalf(), Watch: node.NewWatch(),
	}
	if !g.q.InOrder {
		cfg.Choice = exchange.Rarest
	}
	err = g.follow(cfg.Watch, func() (node.Progress, error) { return n.FetchPart(ctx, cfg) })
	var none *tensor.NoMatchError
	var taken *fs.PathError
	switch {
	case err == nil:
		return g.outcome(&g.progress), nil
	case errors.As(err, &none):
		return getOutcome{}, err
	case errors.Is(err, fs.ErrExist) && errors.As(err, &taken):
		return getOutcome{}, occupied(taken.Path)
	case errors.Is(err, tensor.ErrNoRule):
		return getOutcome{}, fmt.Errorf("%w; say it with --tp-axis 'PATTERN=AXIS' or 'PATTERN=replicated', or name the model's "+
			"architecture with --tp-arch", err)
	case offline:
		err = nobody(g.t.root, g.t.peers, err)
	}
	return getOutcome{}, g.explain(err)
}
