package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/spf13/cobra"

	"dray"
	"dray/exchange"
)

var cmdBlock = &cobra.Command{
	Use:   "block",
	Short: "get, put and describe single blocks",
	Long:  `Block works on single blocks, whatever they mean.`,
}

func newBlock(e *env) *cobra.Command {
	c := bind(e, cmdBlock, nil)
	group(c, newBlockGet(e), newBlockPut(e), newBlockStat(e))
	return c
}

// group makes c a command that only holds others.
func group(c *cobra.Command, subs ...*cobra.Command) {
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		return unknownCommand(c, args[0])
	}
	c.AddCommand(subs...)
}

var cmdBlockGet = &cobra.Command{
	Use:   "get CID",
	Short: "write a block's bytes to standard output",
	Long: `Get writes the bytes of one block, verified, to standard output. A block that is not in the home is fetched.

With --json it prints {"cid":…,"size":…,"data":…}, the data in base64.`,
	Example: "  dray block get bafkrei… --from /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…",
	Args:    arguments(1, 1, "a CID"),
}

type blockRequest struct {
	targetRequest
	Timeout time.Duration `json:"timeout,omitempty"`
}

// blockResult describes a block; Data is only in what `block get --json` prints.
type blockResult struct {
	CID  string `json:"cid"`
	Size int64  `json:"size"`
	Data []byte `json:"data,omitempty"`
}

var (
	taskBlockGet  = task[blockRequest, nothing, blockResult]{name: "block/get", network: true, run: getBlock}
	taskBlockPut  = task[blockPutRequest, nothing, blockResult]{name: "block/put", run: putBlock}
	taskBlockStat = task[blockRequest, nothing, blockResult]{name: "block/stat", run: statBlock}
)

func newBlockGet(e *env) *cobra.Command {
	var o sourceOptions
	c := bind(e, cmdBlockGet, func(ctx context.Context, e *env, args []string) error { return runBlockGet(ctx, e, o, args) })
	o.flags(c)
	planeFlag(e, c)
	return c
}

func runBlockGet(ctx context.Context, e *env, o sourceOptions, args []string) error {
	c, err := parseCID(args[0])
	if err != nil {
		return err
	}
	t, err := o.target(c.String())
	if err != nil {
		return err
	}
	var data blockBuffer
	p := pipes[nothing]{out: e.stdout}
	if e.json {
		p.out = &data
	}
	r, err := taskBlockGet.with(ctx, e, blockRequest{t.request(), o.timeout}, p)
	if err != nil || !e.json {
		return err
	}
	r.Data = data
	return e.emit(r)
}

// blockBuffer collects a block's bytes.
type blockBuffer []byte

func (b *blockBuffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

func getBlock(ctx context.Context, h *house, q blockRequest, p pipes[nothing]) (blockResult, error) {
	ctx, cancel, t, err := q.begin(ctx, h, q.Timeout)
	defer cancel()
	if err != nil {
		return blockResult{}, err
	}
	ctx, a, err := h.ask(ctx, t, exchange.InOrder)
	if err != nil {
		return blockResult{}, err
	}
	defer a.close()
	b, err := a.session.Get(ctx, t.root)
	if err != nil {
		return blockResult{}, a.explain(ctx, err)
	}
	_, err = p.out.Write(b.Data())
	return blockResult{CID: t.root.String(), Size: int64(b.Size())}, err
}

var cmdBlockPut = &cobra.Command{
	Use:   "put [FILE]",
	Short: "store a block and print its CID",
	Long: `Put stores the bytes of a file, or of standard input if there is none or it is "-", as one block.

With --cid the bytes must hash to it. With --json it prints {"cid":…,"size":…}.`,
	Example: `  echo hello | dray block put
  dray block put --codec dag-cbor --hash blake3 node.cbor`,
	Args: arguments(0, 1, "a FILE"),
}

type blockPutRequest struct {
	CID   string `json:"cid,omitempty"`
	Codec string `json:"codec"`
	Hash  string `json:"hash"`
}

func newBlockPut(e *env) *cobra.Command {
	var q blockPutRequest
	c := bind(e, cmdBlockPut, func(ctx context.Context, e *env, args []string) error { return runBlockPut(ctx, e, q, args) })
	c.Flags().StringVar(&q.Codec, "codec", "raw", "how the block is read: raw, dag-pb, dag-cbor or dag-json")
	c.Flags().StringVar(&q.Hash, "hash", "sha2-256", "the hash function, such as sha2-256 or blake3")
	c.Flags().StringVar(&q.CID, "cid", "", "the CID that the block must have")
	return c
}

// prefix says what CID the block gets.
func (q *blockPutRequest) prefix() (cid.Prefix, error) {
	codec, ok := codecs[q.Codec]
	if !ok {
		names := []string{"raw", "dag-pb", "dag-cbor", "dag-json"}
		return cid.Prefix{}, usagef("there is no codec %q%s", q.Codec,
			suggest(q.Codec, names, "there are "+strings.Join(names, ", ")))
	}
	code, ok := mh.Names[q.Hash]
	if _, allowed := dray.LookupHash(code); !ok || !allowed || code == mh.IDENTITY {
		names := []string{"sha2-256", "sha2-512", "blake3", "blake2b-256", "sha3-256"}
		return cid.Prefix{}, usagef("there is no hash function %q%s", q.Hash,
			suggest(q.Hash, names, "there are "+strings.Join(names, ", ")+" and others"))
	}
	return cid.Prefix{Version: 1, Codec: codec, MhType: code, MhLength: -1}, nil
}

func runBlockPut(ctx context.Context, e *env, q blockPutRequest, args []string) error {
	if _, err := q.prefix(); err != nil {
		return err
	}
	if q.CID != "" {
		if _, err := parseCID(q.CID); err != nil {
			return err
		}
	}
	in := e.stdin
	if len(args) == 1 && args[0] != "-" {
		file, err := os.Open(args[0])
		if errors.Is(err, os.ErrNotExist) {
			return usagef("there is no %q; give the path of a file, or - for standard input", args[0])
		}
		if err != nil {
			return err
		}
		defer file.Close()
		in = file
	}
	r, err := taskBlockPut.with(ctx, e, q, pipes[nothing]{in: in})
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(r)
	}
	e.printf("%s", r.CID)
	return nil
}

func putBlock(ctx context.Context, h *house, q blockPutRequest, p pipes[nothing]) (blockResult, error) {
	data, err := io.ReadAll(io.LimitReader(p.in, dray.MaxBlockSize+1))
	if err != nil {
		return blockResult{}, err
	}
	if len(data) > dray.MaxBlockSize {
		return blockResult{}, fmt.Errorf("%w: more than %d bytes; `dray add` makes blocks of a file",
			dray.ErrTooBig, dray.MaxBlockSize)
	}
	prefix, err := q.prefix()
	if err != nil {
		return blockResult{}, err
	}
	var b dray.Block
	if q.CID == "" {
		b, err = dray.Hashed(prefix, data)
	} else {
		var c cid.Cid
		if c, err = parseCID(q.CID); err == nil {
			b, err = dray.NewBlock(c, data)
		}
	}
	if err != nil {
		return blockResult{}, err
	}
	if err := h.node.Put(ctx, b); err != nil {
		return blockResult{}, err
	}
	return blockResult{CID: b.CID().String(), Size: int64(b.Size())}, h.store.Sync(ctx)
}

var cmdBlockStat = &cobra.Command{
	Use:   "stat CID",
	Short: "print the size of a block that is in the home",
	Long: `Stat prints the size of a block, if the home holds it; it asks nobody.

With --json it prints {"cid":…,"size":…}.`,
	Example: "  dray block stat bafkrei…",
	Args:    arguments(1, 1, "a CID"),
}

func newBlockStat(e *env) *cobra.Command { return bind(e, cmdBlockStat, runBlockStat) }

func runBlockStat(ctx context.Context, e *env, args []string) error {
	c, err := parseCID(args[0])
	if err != nil {
		return err
	}
	t := target{root: c}
	r, err := taskBlockStat.with(ctx, e, blockRequest{targetRequest: t.request()}, pipes[nothing]{})
	if err != nil {
		return err
	}
	if e.json {
		return e.emit(r)
	}
	e.printf("%s  %d bytes", r.CID, r.Size)
	return nil
}

func statBlock(ctx context.Context, h *house, q blockRequest, _ pipes[nothing]) (blockResult, error) {
	t, err := q.target()
	if err != nil {
		return blockResult{}, err
	}
	n, err := h.store.Stat(ctx, t.root)
	return blockResult{CID: t.root.String(), Size: n}, err
}
