//go:build amd64 || arm64

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// shed unmaps those pages of the program's file that are as the file has them, and returns how many bytes were resident. It may
// be called at any time: whoever touches such a page gets it again, with those around it.
func shed() (resident int64, err error) {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, err
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	clean, err := cleanParts(f, program)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, p := range clean {
		if _, _, no := unix.Syscall(unix.SYS_MADVISE, p.from, p.to-p.from, unix.MADV_DONTNEED); no != 0 {
			errs = append(errs, no)
			continue
		}
		resident += p.resident
	}
	return resident, errors.Join(errs...)
}

// part is a part of the address space, of which some is resident.
type part struct {
	from, to uintptr
	resident int64 // bytes
}

// cleanParts reads proc_pid_smaps(5) and returns where a file is mapped that nobody can have written to there: neither the
// program (what is not writable now may have been while it was linked) nor a debugger. What was written exists nowhere else and
// would be lost. Parts of which the system does not say so are left out.
func cleanParts(smaps io.Reader, file string) (clean []part, err error) {
	var p part
	ours, private := false, map[string]bool{} // of the part that is read: whether it is the file's, and what it has of each kind
	end := func() {
		anonymous, known := private["Anonymous:"]
		if ours && known && !anonymous && !private["Swap:"] && p.resident > 0 {
			clean = append(clean, p)
		}
	}
	for s := bufio.NewScanner(smaps); ; {
		if !s.Scan() {
			end()
			return clean, s.Err()
		}
		fields := strings.Fields(s.Text())
		if len(fields) < 2 {
			continue
		}
		if !strings.HasSuffix(fields[0], ":") {
			end()
			p, ours = part{}, len(fields) > 5 && (fields[1] == "r-xp" || fields[1] == "r--p") && strings.HasSuffix(s.Text(), " "+file)
			clear(private)
			from, to, _ := strings.Cut(fields[0], "-")
			a, err := strconv.ParseUint(from, 16, 64)
			b, err2 := strconv.ParseUint(to, 16, 64)
			if err := errors.Join(err, err2); err != nil {
				return nil, fmt.Errorf("%q is no part of a process: %w", s.Text(), err)
			}
			p.from, p.to = uintptr(a), uintptr(b)
			continue
		}
		switch fields[0] {
		case "Anonymous:", "Swap:":
			private[fields[0]] = fields[1] != "0"
		case "Rss:":
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return nil, err
			}
			p.resident = kib << 10
		}
	}
}
