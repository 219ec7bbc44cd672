// Package journal keeps the jobs of a home in a file, so that they survive the end of the process and the loss of power.
//
// The file has a record a line: the CRC-32C of the rest as eight hexadecimal digits, a space, and the job as JSON. A later
// record of the same job counts. Records are only appended; when most of them are out of date, the file is written anew
// beside its place and moved there. A line that is torn or damaged is passed over; what was appended before and after
// it counts.
//
// It does not lock the file, which belongs to whoever has the home open, and it decides nothing: see package jobs.
package journal

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"dray/jobs"
)

// slack is how many records may be out of date before the file is written anew, beyond as many as there are jobs.
const slack = 1024

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Journal is an open file of jobs. It is used by one goroutine.
type Journal struct {
	path  string
	file  *os.File
	last  map[jobs.ID]jobs.Job // as the file says
	top   jobs.ID              // the highest number ever given, whose record stays when its job is gone
	lines int
	// unsure says that the end of the file is not known to be on the disk: the next records are written into a new one.
	unsure bool
	// write and sync are replaced by tests.
	write func(*os.File, []byte) error
	sync  func(*os.File) error
}

// Open reads the journal at path, which need not be there, and returns the jobs in it, and how many lines could not be read.
func Open(path string) (j *Journal, list []jobs.Job, damaged int, err error) {
	j = &Journal{
		path: path, last: make(map[jobs.ID]jobs.Job),
		write: func(f *os.File, b []byte) error { _, err := f.Write(b); return err },
		sync:  (*os.File).Sync,
	}
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, 0, err
	}
	j.unsure = err != nil || len(b) > 0 && b[len(b)-1] != '\n'
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, []byte("\n"))
		b = rest
		if len(line) == 0 {
			continue
		}
		r, err := parse(line)
		if err != nil {
			damaged++
			continue
		}
		j.take(r)
	}
	// Reading changes nothing, so that it works on a full disk: the first record has the file written anew if need be.
	j.unsure = j.unsure || damaged > 0
	if !j.unsure {
		if j.file, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
			return nil, nil, 0, err
		}
	}
	return j, j.records(), damaged, nil
}

// records returns what the file says, by number.
func (j *Journal) records() []jobs.Job {
	list := make([]jobs.Job, 0, len(j.last)+1)
	for _, r := range j.last {
		list = append(list, r)
	}
	if _, here := j.last[j.top]; !here && j.top > 0 {
		list = append(list, jobs.Job{ID: j.top, State: jobs.Gone})
	}
	slices.SortFunc(list, func(a, b jobs.Job) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

func (j *Journal) take(r jobs.Job) {
	j.lines++
	j.top = max(j.top, r.ID)
	if r.State == jobs.Gone {
		delete(j.last, r.ID)
		return
	}
	j.last[r.ID] = r
}

func parse(line []byte) (jobs.Job, error) {
	const digits = 8
	if len(line) <= digits || line[digits] != ' ' {
		return jobs.Job{}, jobs.ErrRecord
	}
	sum, err := strconv.ParseUint(string(line[:digits]), 16, 32)
	if err != nil || crc32.Checksum(line[digits+1:], castagnoli) != uint32(sum) {
		return jobs.Job{}, jobs.ErrRecord
	}
	return jobs.ParseRecord(line[digits+1:])
}

func appendLine(dst []byte, r *jobs.Job) []byte {
	b := jobs.AppendRecord(nil, r)
	dst = fmt.Appendf(dst, "%08x ", crc32.Checksum(b, castagnoli))
	return append(append(dst, b...), '\n')
}

// Append adds records. When it returns nil they survive the loss of power. After an error they may or may not.
func (j *Journal) Append(records []jobs.Job) error {
	if len(records) == 0 && (!j.unsure || j.file == nil) {
		return nil
	}
	var b []byte
	for i := range records {
		b = appendLine(b, &records[i])
		j.take(records[i])
	}
	if j.unsure || j.lines > 2*len(j.last)+slack {
		return j.rewrite()
	}
	err := j.write(j.file, b)
	if err == nil {
		err = j.sync(j.file)
	}
	if err != nil {
		j.unsure = true
		return fmt.Errorf("journal of jobs: %w", err)
	}
	return nil
}

// rewrite writes the whole journal anew.
func (j *Journal) rewrite() (err error) {
	j.unsure = true // until it is done
	fresh := j.path + ".new"
	file, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("journal of jobs: %w", err)
	}
	defer func() {
		if err != nil {
			file.Close()
			os.Remove(fresh)
			err = fmt.Errorf("journal of jobs: %w", err)
		}
	}()
	list := j.records()
	var b []byte
	for i := range list {
		b = appendLine(b, &list[i])
	}
	if err := j.write(file, b); err != nil {
		return err
	}
	if err := j.sync(file); err != nil {
		return err
	}
	if err := os.Rename(fresh, j.path); err != nil {
		return err
	}
	if j.file != nil {
		j.file.Close() // it is another file's now, and was synced or not
	}
	j.file, j.lines = file, len(list)
	dir, err := os.Open(filepath.Dir(j.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := j.sync(dir); err != nil {
		return err
	}
	j.unsure = false
	return nil
}

// Close closes the file. What was appended is in it.
func (j *Journal) Close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
