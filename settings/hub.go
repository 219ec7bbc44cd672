package settings

// Hub says what the daemon is as a Hugging Face Hub.
type Hub struct {
	// On says whether it is one at all.
	On bool `toml:"on" doc:"serve the Hugging Face Hub's API over HTTP"`
	// Trust are keys that are believed when they say what a repository holds, besides those of the trust file.
	Trust []string `toml:"trust" doc:"keys that are believed about repositories: KEY, or KEY=org/*"`
	// Requests is how many requests are answered at a time.
	Requests int `toml:"requests" doc:"how many requests are answered at a time; 0 for 512"`
}

func (h *Hub) check() error {
	if h.Requests < 0 {
		return Wrong("hub.requests", h.Requests, "a number, or 0 for 512")
	}
	return nil
}
