package tensor

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// TP names one rank of a group that shares a model's matrices (tensor parallelism).
type TP struct {
	// Rank is this member, from 0; World is how many there are.
	Rank, World int64
	// KVHeads is the number of key/value heads of the model, num_key_value_heads in its configuration. If zero, it is
	// unknown, and key and value projections are split like the others. If it is less than World, ranks share heads: each
	// gets the head that its queries need. KVHeads and World must then divide one another.
	KVHeads int64
}

// SplitKind says what a module is to tensor parallelism.
type SplitKind uint8

const (
	// Replicated modules are whole on every rank: norms, routers, position embeddings.
	Replicated SplitKind = iota
	// Column modules are split along their outputs: queries, keys, values, gate and up projections. So are their biases.
	Column
	// KVColumn is Column for keys and values, which may have fewer heads than there are ranks.
	KVColumn
	// Row modules are split along their inputs: output and down projections. Their results are summed over the ranks, so
	// their biases are whole on every rank, and only one may add them.
	Row
	// Vocab modules are split along the vocabulary: embeddings and heads. If the vocabulary does not divide, each
	// rank but the last ones has ceil(n / World) rows and the last ones have what is left; for every other kind that
	// is an error.
	Vocab
	// ByAxis modules are split along [TPRule.Axis], every parameter alike.
	ByAxis
)

// TPRule says how the modules that a pattern matches are split.
type TPRule struct {
	// Pattern matches names of tensors with their last part cut off when that is a parameter ("weight", "bias" and the
	// parameters of quantised layers), and whole names when the kind is ByAxis.
	Pattern string
	// Kind says what the modules are.
	Kind SplitKind
	// Axis is the axis for ByAxis.
	Axis int
	// Transposed says that weights are stored as inputs × outputs, as GPT-2's are.
	Transposed bool
	// Parts are the relative sizes of what is fused in one matrix along the axis that is split, such as 1, 1, 1 for
	// queries, keys and values of equal size. A rank gets its share of each. If empty, nothing is fused.
	Parts []int64
	// Leading is the number of axes before those of the matrix: 1 for experts that are stacked in one tensor.
	Leading int
}

// parameters are what a module's tensors may be called, with the axis of the outputs and of the inputs in each; -1 means
// that the parameter has no such axis and is whole on every rank.
var parameters = map[string]struct{ out, in int }{
	"weight":           {0, 1},
	"bias":             {0, -1},
	"weight_scale_inv": {0, 1}, // fp8 by blocks
	"weight_packed":    {0, 1}, // compressed-tensors
	"weight_scale":     {0, 1},
	"qweight":          {1, 0}, // GPTQ and AWQ store inputs × outputs
	"qzeros":           {1, 0},
	"scales":           {1, 0},
	"g_idx":            {-1, 0},
}

// TPTable is a list of rules, ready for use. It is immutable and safe for concurrent use.
type TPTable struct {
	rules    []TPRule
	patterns []*Pattern
}

// NewTPTable returns a table of the rules, of which the first that matches a tensor counts. It fails with
// [ErrBadPattern].
func NewTPTable(rules []TPRule) (*TPTable, error) {
	t := &TPTable{rules: slices.Clone(rules)}
	for _, r := range rules {
		p, err := ParsePattern(r.Pattern)
		if err != nil {
			return nil, err
		}
		t.patterns = append(t.patterns, p)
	}
	return t, nil
}

// Slice returns how the tensor called name, of the given shape, is to be cut for this rank by the first rule of the
// table that matches; without slices the rank needs all of it. Vectors, and tensors without elements, that no rule
// matches are replicated. It
// returns [ErrNoRule] for a matrix that no rule matches and [ErrUneven] when the axis does not divide, both naming
// the tensor.
func (tp TP) Slice(name string, shape []int64, table *TPTable) ([]Slice, error) {
	fail := func(err error, reason string, args ...any) ([]Slice, error) {
		err = fmt.Errorf("tensor %s %v: %w: %s", quoteShort(name), shape, err, fmt.Sprintf(reason, args...))
		return nil, border("tensor-parallel", err)
	}
	if tp.World < 1 || tp.Rank < 0 || tp.Rank >= tp.World {
		return nil, border("tensor-parallel", fmt.Errorf("rank %d of %d ranks", tp.Rank, tp.World))
	}
	rule, param := table.find(name)
	if rule == nil {
		long := slices.DeleteFunc(slices.Clone(shape), func(n int64) bool { return n == 1 })
		if len(long) > 1 && !slices.Contains(shape, 0) && tp.World > 1 {
			return fail(ErrNoRule, "say along which axis, or that it is replicated")
		}
		return nil, nil
	}
	axis := rule.axisOf(param)
	if axis < 0 || tp.World == 1 {
		return nil, nil
	}
	if axis >= len(shape) {
		if rule.Kind == ByAxis {
			return fail(ErrNoRule, "it has no axis %d", axis)
		}
		return nil, nil // A scale for the whole tensor.
	}
	if shape[axis] == 1 && (param == "weight_scale" || param == "weight_scale_inv") {
		return nil, nil // A scale for each of the other axis.
	}
	spans, err := tp.spans(shape[axis], rule)
	if err != nil {
		return fail(ErrUneven, "axis %d: %v", axis, err)
	}
	return []Slice{{Axis: axis, Spans: spans}}, nil
}

// find returns the first rule that matches and the parameter that the name ends with.
func (t *TPTable) find(name string) (*TPRule, string) {
	module, param := name, "weight"
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		if _, ok := parameters[name[i+1:]]; ok {
			module, param = name[:i], name[i+1:]
		}
	}
	for i, p := range t.patterns {
		if t.rules[i].Kind == ByAxis && p.Match(name) || t.rules[i].Kind != ByAxis && p.Match(module) {
			return &t.rules[i], param
		}
	}
	return nil, ""
}

// axisOf returns the axis along which a parameter is split, or -1.
func (r *TPRule) axisOf(param string) int {
	at := parameters[param]
	if r.Transposed && param == "weight" {
		at.out, at.in = at.in, at.out
	}
	axis := -1
	switch r.Kind {
	case ByAxis:
		return r.Axis
	case Column, KVColumn, Vocab:
		axis = at.out
	case Row:
		axis = at.in
	}
	if axis >= 0 {
		axis += r.Leading
	}
	return axis
}

// spans returns this rank's share of n elements.
func (tp TP) spans(n int64, r *TPRule) ([]Span, error) {
	if r.Kind == Vocab {
		each := n/tp.World + min(n%tp.World, 1)
		begin := n
		if tp.Rank <= n/max(each, 1) {
			begin = tp.Rank * each
		}
		return []Span{{begin, min(begin+each, n)}}, nil
	}
	rank, world := tp.Rank, tp.World
	if r.Kind == KVColumn && tp.KVHeads > 0 {
		switch {
		case n%tp.KVHeads != 0:
			return nil, fmt.Errorf("%d elements for %d key/value heads", n, tp.KVHeads)
		case world > tp.KVHeads && world%tp.KVHeads == 0:
			rank, world = rank/(world/tp.KVHeads), tp.KVHeads
		case tp.KVHeads%world != 0:
			return nil, fmt.Errorf("%d key/value heads for %d ranks", tp.KVHeads, world)
		}
	}
	parts := r.Parts
	if len(parts) == 0 {
		parts = []int64{1}
	}
	sum := int64(0)
	for _, p := range parts {
		if p < 1 || p > 1<<40 {
			return nil, fmt.Errorf("parts %v", parts)
		}
		sum += p
	}
	if n%sum != 0 {
		return nil, fmt.Errorf("%d elements for parts %v", n, parts)
	}
	var spans []Span
	at := int64(0)
	for _, p := range parts {
		size := n / sum * p
		if size%world != 0 {
			return nil, fmt.Errorf("%d elements for %d ranks", size, world)
		}
		each := size / world
		spans = append(spans, Span{at + rank*each, at + (rank+1)*each})
		at += size
	}
	return spans, nil
}

// linear are the modules of most architectures since LLaMA: qwen, mistral, mixtral, gemma, deepseek, phi and their likes.
var linear = []TPRule{
	{Pattern: "*{rotary_emb,rope_freqs}*", Kind: Replicated},
	{Pattern: "*{norm,layernorm,layer_norm,ln_1,ln_2,ln_f,ln_attn,ln_mlp}", Kind: Replicated},
	{Pattern: "*embed_positions", Kind: Replicated},
	{Pattern: "*.{q_a_proj,kv_a_proj_with_mqa}", Kind: Replicated},
	{Pattern: "*.{q_b_proj,kv_b_proj,q_proj}", Kind: Column},
	{Pattern: "*.{k_proj,v_proj}", Kind: KVColumn},
	{Pattern: "*.{o_proj,out_proj,down_proj,fc2}", Kind: Row},
	{Pattern: "*.{gate_proj,up_proj,fc1,fc_in}", Kind: Column},
	{Pattern: "*.fc_out", Kind: Row},
	{Pattern: "*.gate_up_proj", Kind: Column, Parts: []int64{1, 1}},
	{Pattern: "*.experts.[0-1000000].{w1,w3}", Kind: Column},
	{Pattern: "*.experts.[0-1000000].w2", Kind: Row},
	{Pattern: "*.{gate,router,shared_expert_gate}", Kind: Replicated},
	{Pattern: "{*.,}{embed_tokens,word_embeddings,tok_embeddings,wte,shared,lm_head,embed_out}", Kind: Vocab},
	{Pattern: "{*.,}{project_in,project_out,wpe}", Kind: Replicated},
}

// architectures are the rules that come before linear, by model_type of a configuration.
var architectures = map[string][]TPRule{
	"llama": nil, "mistral": nil, "mixtral": nil, "qwen2": nil, "qwen2_moe": nil, "qwen3": nil, "qwen3_moe": nil,
	"gemma": nil, "gemma2": nil, "gemma3": nil, "deepseek_v2": nil, "deepseek_v3": nil, "opt": nil, "gptj": nil, "phi": {
		{Pattern: "*.dense", Kind: Row},
	},
	// Queries, keys and values of a head lie together, so heads split like rows.
	"gpt_neox": {
		{Pattern: "*.{query_key_value,dense_h_to_4h}", Kind: Column},
		{Pattern: "*.{dense,dense_4h_to_h}", Kind: Row},
		{Pattern: "{*.,}embed_in", Kind: Vocab},
		{Pattern: "*.attention.{bias,masked_bias}", Kind: Replicated},
	},
	"bloom": {
		{Pattern: "*.{query_key_value,dense_h_to_4h}", Kind: Column},
		{Pattern: "*.{dense,dense_4h_to_h}", Kind: Row},
		{Pattern: "*word_embeddings_layernorm", Kind: Replicated},
	},
	// Falcon's new decoder, whose groups of query heads lie with their key and value. The first Falcon-7B has one key and
	// value head after all queries, and needs rules of its own.
	"falcon": {
		{Pattern: "*.{query_key_value,dense_h_to_4h}", Kind: Column},
		{Pattern: "*.{dense,dense_4h_to_h}", Kind: Row},
	},
	"gpt2": {
		{Pattern: "*.c_attn", Kind: Column, Transposed: true, Parts: []int64{1, 1, 1}},
		{Pattern: "*.c_fc", Kind: Column, Transposed: true},
		{Pattern: "*.c_proj", Kind: Row, Transposed: true},
		{Pattern: "*.attn", Kind: Replicated}, // attn.bias is the causal mask
	},
	"mpt": {
		{Pattern: "*.Wqkv", Kind: Column, Parts: []int64{1, 1, 1}},
		{Pattern: "*.up_proj", Kind: Column},
	},
	"t5": {
		{Pattern: "*.{q,k,v,wi,wi_0,wi_1}", Kind: Column},
		{Pattern: "*.{o,wo}", Kind: Row},
		{Pattern: "*.relative_attention_bias.weight", Kind: ByAxis, Axis: 1}, // buckets × heads
	},
	// GGUF keeps the axes of the matrices, in its own order, which File.Shape has turned round.
	"gguf": {
		{Pattern: "blk.*.attn_q", Kind: Column},
		{Pattern: "blk.*.{attn_k,attn_v}", Kind: KVColumn},
		{Pattern: "blk.*.{ffn_gate,ffn_up,ffn_gate_shexp,ffn_up_shexp}", Kind: Column},
		{Pattern: "blk.*.{attn_output,ffn_down,ffn_down_shexp}", Kind: Row},
		{Pattern: "blk.*.{ffn_gate_exps,ffn_up_exps}", Kind: Column, Leading: 1},
		{Pattern: "blk.*.ffn_down_exps", Kind: Row, Leading: 1},
		{Pattern: "blk.*.ffn_gate_inp", Kind: Replicated},
		{Pattern: "{token_embd,output}", Kind: Vocab},
	},
}

// TPRules returns the rules for an architecture, named as model_type in a model's configuration names it, or "gguf"
// for files of that format. For the empty and for unknown names it returns those that hold for most, which cover
// everything that is built like LLaMA. Rules of the user's come before them, and can be read with [ParseTPRule].
// Matrices in which queries, keys and values of different sizes are fused (phi3's qkv_proj) have no rule, because
// their parts depend on the configuration. The caller may change the slice.
func TPRules(architecture string) []TPRule {
	return slices.Concat(architectures[architecture], linear)
}

// Architectures returns the names that [TPRules] knows, sorted.
func Architectures() []string { return slices.Sorted(maps.Keys(architectures)) }

// ParseTPRule reads a rule as users write it: "PATTERN=AXIS" for names and the axis that they are split along,
// "PATTERN=AXIS:4,1,1" with the parts that are fused along it, or "PATTERN=replicated".
func ParseTPRule(text string) (TPRule, error) {
	fail := func(err error) (TPRule, error) {
		return TPRule{}, border("parse rule", fmt.Errorf("%q: %w", text, err))
	}
	i := strings.LastIndexByte(text, '=')
	if i < 0 {
		return fail(fmt.Errorf("want PATTERN=AXIS or PATTERN=replicated"))
	}
	r := TPRule{Pattern: text[:i], Kind: ByAxis, Axis: -1}
	if _, err := ParsePattern(r.Pattern); err != nil {
		return fail(err)
	}
	if text[i+1:] == "replicated" {
		return r, nil
	}
	axis, parts, fused := strings.Cut(text[i+1:], ":")
	var err error
	if r.Axis, err = strconv.Atoi(axis); err != nil || r.Axis < 0 || r.Axis >= MaxDims {
		return fail(fmt.Errorf("%q is not an axis", axis))
	}
	if !fused {
		return r, nil
	}
	for p := range strings.SplitSeq(parts, ",") {
		n, err := strconv.ParseInt(p, 10, 64)
		if err != nil || n < 1 || n > 1<<40 {
			return fail(fmt.Errorf("%q is not the size of a part", p))
		}
		r.Parts = append(r.Parts, n)
	}
	return r, nil
}
