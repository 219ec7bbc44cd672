package settings

// Dash says what the page does on which people see what the daemon does.
type Dash struct {
	// Enabled says that there is one.
	Enabled bool `toml:"enabled" doc:"whether the page is served, at / and /dash/"`
	// Actions says that jobs can be paused, resumed, cancelled and tried again on it.
	Actions bool `toml:"actions" doc:"whether jobs can be paused, resumed, cancelled and tried again on the page"`
	// Listeners bounds how many pages may be open.
	Listeners int `toml:"listeners" doc:"how many pages may be open at a time"`
}

func defaultDash() Dash { return Dash{Enabled: true, Actions: true, Listeners: 32} }

func (d *Dash) check() error {
	return between("dash.listeners", d.Listeners, 1, 1000)
}
