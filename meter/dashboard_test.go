package meter

import (
	"context"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"dray/node"
	"dray/transport"
)

var metricName = regexp.MustCompile(`dray_[a-z_]+`)

// TestDashboard reads the Grafana dashboard in deploy and the documentation: each metric that they name is one that there is.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../deploy/helm/dray/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, transport.NewMemory(transport.MemoryConfig{}), false)
	h.meter.cfg.Wire = func() []Wire { return []Wire{{Transport: "tcp"}} }
	h.meter.cfg.Storage = noStorage
	h.meter.Ended(node.Transfer{Kind: node.KindFetch, State: node.TransferDone, Gifts: []node.Gift{{Kind: node.GiftPeer}}})
	h.meter.requests.WithLabelValues("hub", "200").Observe(1)
	h.meter.busy.WithLabelValues("hub").Inc()
	there := scrape(t, h.meter)
	check := func(who, text string) (asked int) {
		for _, name := range metricName.FindAllString(text, -1) {
			asked++
			whole := there[name]
			for _, part := range []string{"_bucket", "_count", "_sum"} {
				if whole == nil {
					whole = there[strings.TrimSuffix(name, part)]
				}
			}
			if whole == nil {
				t.Errorf("%s asks for %s, which there is not", who, name)
			}
		}
		return asked
	}
	asked := 0
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			asked += check(p.Title, target.Expr)
		}
	}
	page, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	if documented := check("docs/metrics.md", string(page)); asked < 20 || documented < 20 {
		t.Errorf("%d metrics are asked for, %d are documented", asked, documented)
	}
}

func noStorage(context.Context) (Storage, error) { return Storage{}, nil }
