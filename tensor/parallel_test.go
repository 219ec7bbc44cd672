package tensor

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

func table(t *testing.T, rules []TPRule) *TPTable {
	t.Helper()
	x, err := NewTPTable(rules)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestTPSlice(t *testing.T) {
	rows := []struct {
		arch, name string
		shape      []int64
		tp         TP
		want       string
	}{
		{"llama", "model.layers.3.self_attn.q_proj.weight", []int64{64, 32}, TP{1, 4, 0}, "[{0 [{16 32}]}]"},
		{"llama", "model.layers.3.self_attn.q_proj.bias", []int64{64}, TP{1, 4, 0}, "[{0 [{16 32}]}]"},
		{"llama", "model.layers.3.self_attn.k_proj.weight", []int64{16, 32}, TP{3, 4, 2}, "[{0 [{8 16}]}]"},
		{"llama", "model.layers.3.self_attn.k_proj.weight", []int64{16, 32}, TP{3, 4, 0}, "[{0 [{12 16}]}]"},
		{"llama", "model.layers.3.self_attn.v_proj.bias", []int64{16}, TP{1, 4, 2}, "[{0 [{0 8}]}]"},
		{"llama", "model.layers.3.self_attn.o_proj.weight", []int64{64, 32}, TP{1, 4, 0}, "[{1 [{8 16}]}]"},
		{"llama", "model.layers.3.self_attn.o_proj.bias", []int64{64}, TP{1, 4, 0}, "[]"},
		{"llama", "model.layers.3.mlp.gate_proj.weight", []int64{64, 32}, TP{0, 2, 0}, "[{0 [{0 32}]}]"},
		{"llama", "model.layers.3.mlp.down_proj.weight", []int64{32, 64}, TP{1, 2, 0}, "[{1 [{32 64}]}]"},
		{"llama", "model.layers.3.input_layernorm.weight", []int64{32}, TP{1, 2, 0}, "[]"},
		{"llama", "model.embed_tokens.weight", []int64{10, 32}, TP{0, 4, 0}, "[{0 [{0 3}]}]"},
		{"llama", "model.embed_tokens.weight", []int64{10, 32}, TP{3, 4, 0}, "[{0 [{9 10}]}]"},
		{"llama", "lm_head.weight", []int64{5, 32}, TP{3, 4, 0}, "[{0 [{5 5}]}]"},
		{"llama", "lm_head.weight", []int64{5, 32}, TP{0, 1, 0}, "[]"},
		{"", "model.layers.0.mlp.up_proj.qweight", []int64{8, 64}, TP{1, 2, 0}, "[{1 [{32 64}]}]"},
		{"", "model.layers.0.mlp.down_proj.qweight", []int64{8, 64}, TP{1, 2, 0}, "[{0 [{4 8}]}]"},
		{"", "model.layers.0.mlp.down_proj.g_idx", []int64{8}, TP{1, 2, 0}, "[{0 [{4 8}]}]"},
		{"", "model.layers.0.mlp.up_proj.weight_scale_inv", []int64{8, 4}, TP{1, 2, 0}, "[{0 [{4 8}]}]"},
		{"", "model.layers.0.mlp.down_proj.weight_scale", []int64{8, 1}, TP{1, 2, 0}, "[]"},
		{"", "model.layers.0.mlp.up_proj.weight_scale", nil, TP{1, 2, 0}, "[]"},
		{"", "model.layers.0.mlp.gate_up_proj.weight", []int64{16, 4}, TP{1, 2, 0}, "[{0 [{4 8} {12 16}]}]"},
		{"mixtral", "model.layers.0.block_sparse_moe.experts.7.w1.weight", []int64{8, 4}, TP{1, 2, 0}, "[{0 [{4 8}]}]"},
		{"mixtral", "model.layers.0.block_sparse_moe.experts.7.w2.weight", []int64{4, 8}, TP{1, 2, 0}, "[{1 [{4 8}]}]"},
		{"mixtral", "model.layers.0.block_sparse_moe.gate.weight", []int64{8, 4}, TP{1, 2, 0}, "[]"},
		{"qwen2_moe", "model.layers.0.mlp.shared_expert.up_proj.weight", []int64{8, 4}, TP{1, 2, 0}, "[{0 [{4 8}]}]"},
		{"gpt2", "h.0.attn.c_attn.weight", []int64{4, 24}, TP{1, 2, 0}, "[{1 [{4 8} {12 16} {20 24}]}]"},
		{"gpt2", "h.0.attn.c_attn.bias", []int64{24}, TP{1, 2, 0}, "[{0 [{4 8} {12 16} {20 24}]}]"},
		{"gpt2", "h.0.attn.c_proj.weight", []int64{8, 4}, TP{1, 2, 0}, "[{0 [{4 8}]}]"},
		{"gpt2", "h.0.mlp.c_fc.weight", []int64{4, 8}, TP{1, 2, 0}, "[{1 [{4 8}]}]"},
		{"gpt2", "h.0.mlp.c_proj.bias", []int64{4}, TP{1, 2, 0}, "[]"},
		{"gpt2", "h.0.attn.bias", []int64{1, 1, 8, 8}, TP{1, 2, 0}, "[]"},
		{"gpt2", "wte.weight", []int64{8, 4}, TP{1, 2, 0}, "[{0 [{4 8}]}]"},
		{"gpt2", "wpe.weight", []int64{8, 4}, TP{1, 2, 0}, "[]"},
		{"gpt_neox", "gpt_neox.layers.0.attention.query_key_value.weight", []int64{24, 8}, TP{1, 2, 0}, "[{0 [{12 24}]}]"},
		{"gpt_neox", "gpt_neox.layers.0.attention.dense.weight", []int64{8, 8}, TP{1, 2, 0}, "[{1 [{4 8}]}]"},
		{"gpt_neox", "gpt_neox.embed_in.weight", []int64{8, 8}, TP{1, 2, 0}, "[{0 [{4 8}]}]"},
		{"gpt_neox", "embed_out.weight", []int64{8, 8}, TP{1, 2, 0}, "[{0 [{4 8}]}]"},
		{"bloom", "h.0.mlp.dense_4h_to_h.weight", []int64{4, 8}, TP{1, 2, 0}, "[{1 [{4 8}]}]"},
		{"bloom", "word_embeddings.weight", []int64{8, 4}, TP{1, 2, 0}, "[{0 [{4 8}]}]"},
		{"falcon", "transformer.h.0.mlp.dense_h_to_4h.weight", []int64{8, 4}, TP{1, 2, 0}, "[{0 [{4 8}]}]"},
		{"opt", "model.decoder.layers.0.fc2.weight", []int64{4, 8}, TP{1, 2, 0}, "[{1 [{4 8}]}]"},
		{"opt", "model.decoder.layers.0.fc1.bias", []int64{8}, TP{1, 2, 0}, "[{0 [{4 8}]}]"},
		{"opt", "model.decoder.embed_positions.weight", []int64{8, 4}, TP{1, 2, 0}, "[]"},
		{"t5", "encoder.block.0.layer.0.SelfAttention.q.weight", []int64{8, 4}, TP{1, 2, 0}, "[{0 [{4 8}]}]"},
		{"t5", "decoder.block.0.layer.2.DenseReluDense.wo.weight", []int64{4, 8}, TP{1, 2, 0}, "[{1 [{4 8}]}]"},
		{"t5", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", []int64{32, 8}, TP{1, 2, 0}, "[{1 [{4 8}]}]"},
		{"t5", "shared.weight", []int64{8, 4}, TP{1, 2, 0}, "[{0 [{4 8}]}]"},
		{"gguf", "blk.0.ffn_down_exps.weight", []int64{3, 4, 64}, TP{1, 2, 0}, "[{2 [{32 64}]}]"},
		{"gguf", "blk.0.attn_output.weight", []int64{4, 64}, TP{1, 2, 0}, "[{1 [{32 64}]}]"},
		{"gguf", "output.weight", []int64{4, 64}, TP{1, 2, 0}, "[{0 [{2 4}]}]"},
		{"gguf", "output_norm.weight", []int64{64}, TP{1, 2, 0}, "[]"},
		{"mpt", "transformer.blocks.0.attn.Wqkv.weight", []int64{12, 4}, TP{1, 2, 0}, "[{0 [{2 4} {6 8} {10 12}]}]"},
		{"", "vector.of.nobody", []int64{5}, TP{1, 2, 0}, "[]"},
	}
	for _, row := range rows {
		got, err := row.tp.Slice(row.name, row.shape, table(t, TPRules(row.arch)))
		if err != nil || fmt.Sprint(got) != row.want {
			t.Errorf("%s %s %v rank %d/%d: %v, %v; want %s", row.arch, row.name, row.shape, row.tp.Rank, row.tp.World, got, err, row.want)
		}
	}
	for _, row := range []struct {
		name  string
		shape []int64
		tp    TP
		want  error
	}{
		{"a.b.q_proj.weight", []int64{7, 4}, TP{0, 2, 0}, ErrUneven},
		{"a.b.o_proj.weight", []int64{4, 7}, TP{0, 2, 0}, ErrUneven},
		{"a.b.gate_up_proj.weight", []int64{7, 4}, TP{0, 2, 0}, ErrUneven},
		{"a.b.k_proj.weight", []int64{12, 4}, TP{0, 4, 3}, ErrUneven},
		{"a.b.k_proj.weight", []int64{13, 4}, TP{0, 4, 2}, ErrUneven},
		{"a.b.qkv_proj.weight", []int64{12, 4}, TP{0, 4, 0}, ErrNoRule},
		{"a.b.q_proj.weight", []int64{8, 4}, TP{4, 4, 0}, nil},
		{"a.b.q_proj.weight", []int64{8, 4}, TP{-1, 4, 0}, nil},
		{"a.b.q_proj.weight", []int64{8, 4}, TP{0, 0, 0}, nil},
	} {
		if _, err := row.tp.Slice(row.name, row.shape, table(t, TPRules(""))); err == nil || row.want != nil && !errors.Is(err, row.want) {
			t.Errorf("%s %v %+v: %v, want %v", row.name, row.shape, row.tp, err, row.want)
		}
	}
}

// The ranks' shares of every split tensor are the whole tensor, without overlap.
func TestTPShares(t *testing.T) {
	for arch := range architectures {
		for _, r := range TPRules(arch) {
			if _, err := ParsePattern(r.Pattern); err != nil {
				t.Errorf("%s: %v", arch, err)
			}
			for _, n := range []int64{24, 48, 7} {
				for _, world := range []int64{1, 2, 4} {
					if r.Kind != Vocab && n == 7 {
						continue
					}
					var all []Span
					for rank := range world {
						spans, err := TP{Rank: rank, World: world}.spans(n, &r)
						if err != nil {
							t.Fatal(arch, r, n, world, err)
						}
						all = append(all, spans...)
					}
					slices.SortFunc(all, func(a, b Span) int { return compare(a.Begin, b.Begin) })
					if m := merged(all); len(m) != 1 || m[0] != (Span{0, n}) {
						t.Errorf("%s %+v: %d elements for %d ranks make %v", arch, r, n, world, all)
					}
				}
			}
		}
	}
}

func TestParseTPRule(t *testing.T) {
	r, err := ParseTPRule("*.qkv_proj.weight=0:4,1,1")
	if err != nil || r.Axis != 0 || fmt.Sprint(r.Parts) != "[4 1 1]" {
		t.Errorf("%+v, %v", r, err)
	}
	rules := append([]TPRule{r}, TPRules("")...)
	got, err := TP{Rank: 1, World: 2}.Slice("l.0.qkv_proj.weight", []int64{12, 4}, table(t, rules))
	if err != nil || fmt.Sprint(got) != "[{0 [{4 8} {9 10} {11 12}]}]" {
		t.Errorf("%v, %v", got, err)
	}
	r, err = ParseTPRule("x=replicated")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := (TP{Rank: 1, World: 2}).Slice("x", []int64{3, 3}, table(t, []TPRule{r})); err != nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
	r, _ = ParseTPRule("x=2")
	if _, err := (TP{Rank: 1, World: 2}).Slice("x", []int64{4, 4}, table(t, []TPRule{r})); !errors.Is(err, ErrNoRule) {
		t.Errorf("an axis that is not there: %v", err)
	}
	for _, bad := range []string{"", "x", "x=", "x=-1", "x=1x", "x=64", "x=0:", "x=0:1,0", "[z-a]=1"} {
		if _, err := ParseTPRule(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}
