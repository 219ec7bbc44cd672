package main

import (
	"os"
	"runtime"
	"slices"
	"strings"
)

// machine says where the figures come from.
type machine struct {
	CPU    string   `json:"cpu"`
	Flags  []string `json:"flags"`
	Cores  int      `json:"cores"`
	Kernel string   `json:"kernel"`
	Go     string   `json:"go"`
	OS     string   `json:"os"`
	// MemoryKiB is what the machine has in all.
	Memory string `json:"memory"`
}

// tellingFlags are the CPU features that decide how fast hashing and encryption are.
var tellingFlags = []string{"aes", "avx2", "avx512f", "avx512vl", "sha_ni", "vaes", "vpclmulqdq", "asimd", "sha2"}

func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	m.CPU = procField("/proc/cpuinfo", "model name")
	all := strings.Fields(procField("/proc/cpuinfo", "flags"))
	for _, f := range tellingFlags {
		if slices.Contains(all, f) {
			m.Flags = append(m.Flags, f)
		}
	}
	m.Memory = procField("/proc/meminfo", "MemTotal")
	return m
}

// procField returns the value of the first "key : value" line in a file under /proc, or "" when there is none.
func procField(path, key string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		k, v, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
