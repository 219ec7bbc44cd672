package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"dray"
	"dray/exchange"
	"dray/node"
	"dray/tensor"
)

var cmdTensors = &cobra.Command{
	Use:   "tensors " + tensorsHelp,
	Short: "list the tensors in a file or model",
	Long: `Tensors lists names, types, shapes and sizes of the tensors in a safetensors, GGUF, npy or npz file, or in all of those in a
directory; the files that a model.safetensors.index.json names are listed as one model, each tensor with its file. Names are
in natural order. Of what is not in the home only the skeleton and the headers are fetched.

A tensor has a CID where the file was cut at its borders, as ` + "`dray add`" + ` cuts tensor files: it stands for the tensor's bytes, in
whichever file they are. A PATH of this host has no CIDs.

With --json each tensor is a line {"name":…,"dtype":…,"shape":[…],"bytes":…,"cid":…,"file":…,"begin":…,"end":…}, and the last
line is {"tensors":…,"elements":…,"bytes":…,"files":…}.`,
	Example: `  dray tensors model.safetensors
  dray tensors bafybei… --from /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…
  dray tensors TICKET/model --json`,
	Args: arguments(1, 1, tensorsHelp),
}

const tensorsHelp = "CID|TICKET[/path/inside]|PATH"

func newTensors(e *env) *cobra.Command {
	var o sourceOptions
	c := bind(e, cmdTensors, func(ctx context.Context, e *env, args []string) error { return runTensors(ctx, e, o, args) })
	o.flags(c)
	planeFlag(e, c)
	return c
}

// listedTensor is one tensor of a listing.
type listedTensor struct {
	Name  string  `json:"name"`
	DType string  `json:"dtype"`
	Shape []int64 `json:"shape"`
	Bytes int64   `json:"bytes"`
	CID   string  `json:"cid,omitempty"`
	File  string  `json:"file,omitempty"`
	// Begin and End are the tensor's bytes in its file.
	Begin int64 `json:"begin"`
	End   int64 `json:"end"`
}

// tensorTotals is the end of a listing.
type tensorTotals struct {
	Tensors  int   `json:"tensors"`
	Elements int64 `json:"elements"`
	Bytes    int64 `json:"bytes"`
	Files    int   `json:"files"`
	// Malformed says of each file that could not be read why, and Absent which files and tensors an index names in vain.
	Malformed []string `json:"malformed,omitempty"`
	Absent    []string `json:"absent,omitempty"`
}

type tensorsRequest struct {
	targetRequest
	Timeout time.Duration `json:"timeout,omitempty"`
}

var taskTensors = task[tensorsRequest, listedTensor, tensorTotals]{name: "tensors", network: true, run: listTensors}

func runTensors(ctx context.Context, e *env, o sourceOptions, args []string) error {
	var list []listedTensor
	note := func(t listedTensor) { list = append(list, t) }
	totals, err := findTensors(ctx, e, o, args[0], note)
	if err != nil {
		return err
	}
	if e.json {
		for _, t := range list {
			if err := e.emit(t); err != nil {
				return err
			}
		}
		if err := e.emit(totals); err != nil {
			return err
		}
	} else {
		printTensors(e, list, &totals)
	}
	return totals.problem()
}

// findTensors lists what the argument names: a file or directory of this host if it is no CID and no ticket.
func findTensors(ctx context.Context, e *env, o sourceOptions, arg string, note func(listedTensor)) (tensorTotals, error) {
	t, err := o.target(arg)
	if err != nil {
		_, serr := os.Stat(arg)
		switch {
		case serr == nil:
			c, err := node.LocalTensors(arg)
			if err != nil {
				return tensorTotals{}, fmt.Errorf("%s: %w", arg, cause(err))
			}
			return noteTensors(c, note), nil
		case !looksLikeTicket(arg) && !strings.ContainsRune(arg, '/') || strings.Contains(arg, "."):
			return tensorTotals{}, fmt.Errorf("%w, nor is there such a file", err)
		}
		return tensorTotals{}, err
	}
	return taskTensors.with(ctx, e, tensorsRequest{t.request(), o.timeout}, pipes[listedTensor]{note: note})
}

func listTensors(ctx context.Context, h *house, q tensorsRequest, p pipes[listedTensor]) (tensorTotals, error) {
	ctx, cancel, t, err := q.begin(ctx, h, q.Timeout)
	defer cancel()
	if err != nil {
		return tensorTotals{}, err
	}
	if len(t.names) > 0 {
		whole := t.root
		if t.root, err = h.lookup(ctx, t); err != nil {
			return tensorTotals{}, err
		}
		h.node.Under(whole, t.root)
	}
	n, offline, done, err := h.reach(t.peers)
	if err != nil {
		return tensorTotals{}, err
	}
	defer done()
	c, err := n.Tensors(ctx, node.TensorsConfig{Root: t.root, Peers: t.peers, Class: exchange.High})
	if err != nil {
		if offline && !errors.Is(err, tensor.ErrNotTensors) && c == nil {
			err = nobody(t.root, t.peers, err)
		}
		return tensorTotals{}, err
	}
	return noteTensors(c, p.note), nil
}

// noteTensors hands over a catalog, model by model, each in natural order of the names.
func noteTensors(c *node.Catalog, note func(listedTensor)) tensorTotals {
	totals := tensorTotals{}
	for i := range c.Files {
		f := &c.Files[i]
		if f.Err != nil {
			totals.Malformed = append(totals.Malformed, f.Err.Error())
			continue
		}
		totals.Files++
	}
	for i := range c.Models {
		m := &c.Models[i]
		for _, a := range m.Absent {
			totals.Absent = append(totals.Absent, fmt.Sprintf("%s: the file %s", m.Path, a))
		}
		for _, x := range m.Missing {
			totals.Absent = append(totals.Absent, fmt.Sprintf("%s: the tensor %q in %s", m.Path, x.Name, x.Shard))
		}
		list := slices.Clone(m.Tensors)
		slices.SortStableFunc(list, func(a, b node.ModelTensor) int { return tensor.CompareNatural(a.Name, b.Name) })
		for k := range list {
			t := &list[k]
			x := listedTensor{
				Name: t.Name, DType: t.DType.String(), Shape: t.Shape, Bytes: t.Bytes(), File: c.Files[t.File].Path,
				Begin: t.Begin, End: t.End,
			}
			if x.Shape == nil {
				x.Shape = []int64{}
			}
			if t.CID.Defined() {
				x.CID = t.CID.String()
			}
			totals.Tensors++
			totals.Elements += t.Elements()
			totals.Bytes += x.Bytes
			note(x)
		}
	}
	return totals
}

// printTensors writes a listing in columns.
func printTensors(e *env, list []listedTensor, totals *tensorTotals) {
	const most = 60 // columns for a name, unless it is longer
	var name, dtype, shape int
	for _, t := range list {
		name = max(name, min(len([]rune(printable(t.Name))), most))
		dtype = max(dtype, len([]rune(t.DType)))
		shape = max(shape, len(shapeText(t.Shape)))
	}
	for _, t := range list {
		id := t.CID
		if id == "" {
			id = "-"
		}
		line := fmt.Sprintf("%-*s  %-*s  %-*s  %8s  %s", name, printable(t.Name), dtype, printable(t.DType), shape,
			shapeText(t.Shape), size(t.Bytes), id)
		if t.File != "" {
			line += "  " + printable(t.File)
		}
		e.printf("%s", line)
	}
	e.printf("%s, %s, %s in %s", plural(int64(totals.Tensors), "tensor"), plural(totals.Elements, "element"), size(totals.Bytes),
		plural(int64(totals.Files), "file"))
}

// shapeText writes a shape as people do.
func shapeText(shape []int64) string {
	parts := make([]string, len(shape))
	for i, n := range shape {
		parts[i] = strconv.FormatInt(n, 10)
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// printable returns a name that a stranger chose, quoted if it could do more than be read.
func printable(s string) string {
	odd := func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }
	if s == "" || strings.IndexFunc(s, odd) >= 0 {
		return strconv.Quote(s)
	}
	return s
}

// problem returns what is wrong with what was listed, or nil.
func (t *tensorTotals) problem() error {
	switch {
	case len(t.Malformed) > 0:
		return errors.New(strings.Join(t.Malformed, "\n  "))
	case len(t.Absent) > 0:
		return fmt.Errorf("%w: %s", dray.ErrNotFound, strings.Join(t.Absent, "\n  "))
	}
	return nil
}
