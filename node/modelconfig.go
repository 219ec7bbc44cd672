package node

import (
	"encoding/json"
	"fmt"
	"strconv"

	"dray/tensor"
)

// ModelConfig is what is known of a model beside its tensors, as far as splitting it needs it. Zero values are unknown.
type ModelConfig struct {
	// Architecture is model_type of the configuration, or "gguf" for files of that format.
	Architecture string
	// KVHeads is the number of key/value heads.
	KVHeads int64
}

// configure fills in a model's configuration from the file beside it, if there is one, or from its header.
func (c *Catalog) configure(m *Model, l *listed) error {
	if len(m.Files) > 0 {
		if f := c.Files[m.Files[0]].Tensors; f.Format == tensor.GGUF {
			heads, err := strconv.ParseInt(f.Metadata[f.Metadata["general.architecture"]+".attention.head_count_kv"], 10, 64)
			if err != nil {
				heads = 0
			}
			m.Config = ModelConfig{Architecture: string(tensor.GGUF), KVHeads: max(heads, 0)}
			return nil
		}
	}
	if l == nil || l.path == "" {
		return nil
	}
	b, err := l.whole(maxConfig)
	if err != nil {
		return fmt.Errorf("%s: %w", l.path, cause(err))
	}
	type fields struct {
		ModelType string `json:"model_type"`
		KVHeads   int64  `json:"num_key_value_heads"`
	}
	var doc struct {
		fields
		Text fields `json:"text_config"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil // it is somebody else's file, and only helps
	}
	m.Config = ModelConfig{Architecture: doc.ModelType, KVHeads: max(doc.KVHeads, 0)}
	if m.Config.KVHeads == 0 {
		m.Config.KVHeads = max(doc.Text.KVHeads, 0)
	}
	if m.Config.Architecture == "" {
		m.Config.Architecture = doc.Text.ModelType
	}
	return nil
}
