package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The wall clock of one process cannot be set: it is the machine's, and time namespaces have no wall clock. So the getter
// is the same dray, built with a standard library whose wall clock steps: time.Now adds a step to the seconds once the
// process is so old. Nothing else changes; the monotonic clock goes on, as it does when a real clock is set.

const (
	// stepVariable holds when the clock steps, in nanoseconds of the process's age, and by how many seconds.
	stepVariable = "FAULTS_WALL_STEP"
	// nowLine is the line of time.Now that is changed.
	nowLine = "\tsec, nsec, mono := runtimeNow()\n"
	// steppedLine is what follows it.
	steppedLine = "\tif mono-startNano >= wallStepAt {\n\t\tsec += wallStep\n\t}\n"
	// stepSource is what the file gets besides.
	stepSource = `

// wallStep is added to the wall clock's seconds once the process is wallStepAt old.
var wallStepAt, wallStep int64 = 1<<63 - 1, 0

func init() {
	v, ok := syscall.Getenv("` + stepVariable + `")
	if !ok {
		return
	}
	numbers := [2]int64{}
	sign, at := int64(1), 0
	for _, c := range []byte(v) {
		switch {
		case c == ',':
			at, sign = 1, 1
		case c == '-':
			sign = -1
		default:
			numbers[at] = numbers[at]*10 + sign*int64(c-'0')
		}
	}
	wallStepAt, wallStep = numbers[0], numbers[1]
}
`
)

// stepping returns a dray whose wall clock steps when [stepVariable] says so.
func (b *bench) stepping(ctx context.Context) (string, error) {
	if b.stepped != "" {
		return b.stepped, nil
	}
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	text := string(source)
	if strings.Count(text, nowLine) != 1 || !strings.Contains(text, "\nimport (\n") {
		return "", errors.New("this version of Go reads its clock in another way")
	}
	text = strings.Replace(text, nowLine, nowLine+steppedLine, 1)
	text = strings.Replace(text, "\nimport (\n", "\nimport (\n\t\"syscall\"\n", 1) + stepSource
	changed, overlay := filepath.Join(b.work, "time.go"), filepath.Join(b.work, "overlay.json")
	mapping, err := json.Marshal(map[string]any{"Replace": map[string]string{original: changed}})
	if err != nil {
		return "", err
	}
	path := filepath.Join(b.work, "dray-stepping")
	if err := errors.Join(
		os.WriteFile(changed, []byte(text), 0o644), os.WriteFile(overlay, mapping, 0o644),
		b.buildDray(ctx, path, "-overlay", overlay),
	); err != nil {
		return "", err
	}
	b.stepped = path
	return path, nil
}

// buildStepping makes the program before it is needed, which takes a while.
func buildStepping(ctx context.Context, b *bench) error {
	_, err := b.stepping(ctx)
	return err
}

// stepAfter is how old the getter is when its clock steps.
const stepAfter = 2 * time.Second

// resetAt breaks all connections just after the getter's clock has stepped, so that new ones are made under the new time.
func resetAt(after time.Duration) func(context.Context, *scene) error {
	return func(ctx context.Context, s *scene) error {
		const later = 100 * time.Millisecond
		if err := pause(ctx, time.Until(s.started.Add(after+later))); err != nil {
			return err
		}
		s.holders[0].proxy.reset()
		return nil
	}
}

// stepClock has the getter's wall clock step once it has run for some time.
func stepClock(after, step time.Duration) func(context.Context, *scene) error {
	return func(ctx context.Context, s *scene) error {
		path, err := s.b.stepping(ctx)
		s.g.dray = path
		s.g.env = []string{fmt.Sprintf("%s=%d,%d", stepVariable, after.Nanoseconds(), int64(step.Seconds()))}
		return err
	}
}
