// Package matrix is the command line of a program of the client matrix, for those in Go: what program.py is for those in Python.
//
// The commands, the lines of records and the answers of `admin` are described in program.py and records.py. This file turns
// lines into records and back and runs one command; it knows no client.
package matrix

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Silence is the time without anything new after which a program gives up.
const Silence = 20 * time.Second

// A large value in hexadecimal, with its key and headers, fits a line of this many bytes.
const lineBytesMax = 4 << 20

// Header is a header of a record; a nil value is null.
type Header struct {
	Name  string
	Value []byte
}

// Record is one line. A nil key or value is null.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64
	TimeMs    int64
	Key       []byte
	Value     []byte
	Headers   []Header
}

func bytesOrNil(text string) ([]byte, error) {
	if text == "-" {
		return nil, nil
	}
	return hex.DecodeString(text)
}

func textOrNull(data []byte) string {
	if data == nil {
		return "-"
	}
	return hex.EncodeToString(data)
}

func recordOf(line string) (record Record, err error) {
	fields := strings.Split(line, "\t")
	if len(fields) != 7 {
		return record, fmt.Errorf("a line of %d fields", len(fields))
	}
	partition, err := strconv.ParseInt(fields[1], 10, 32)
	if err != nil {
		return record, err
	}
	record.Topic, record.Partition = fields[0], int32(partition)
	if record.Offset, err = strconv.ParseInt(fields[2], 10, 64); err != nil {
		return record, err
	}
	if record.TimeMs, err = strconv.ParseInt(fields[3], 10, 64); err != nil {
		return record, err
	}
	if record.Key, err = bytesOrNil(fields[4]); err != nil {
		return record, err
	}
	if record.Value, err = bytesOrNil(fields[5]); err != nil {
		return record, err
	}
	for _, pair := range strings.Split(fields[6], ",") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, ":")
		decoded, err := hex.DecodeString(name)
		if err != nil {
			return record, err
		}
		header := Header{Name: string(decoded)}
		if header.Value, err = bytesOrNil(value); err != nil {
			return record, err
		}
		record.Headers = append(record.Headers, header)
	}
	return record, nil
}

func readRecords(path string) ([]Record, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var records []Record
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, lineBytesMax)
	for lines.Scan() {
		record, err := recordOf(lines.Text())
		if err != nil {
			return nil, err
		}
		records = append(records, record)
	}
	return records, lines.Err()
}

// Place is a partition of a topic.
type Place struct {
	Topic     string
	Partition int32
}

// Reading is what a consumer has still to read, and the file that takes it.
type Reading struct {
	file *os.File
	out  *bufio.Writer
	left map[Place]int64
}

// NewReading begins the file; ends are the offsets at which reading ends.
func NewReading(path string, ends map[Place]int64) (*Reading, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	left := make(map[Place]int64)
	for place, end := range ends {
		if end > 0 {
			left[place] = end
		}
	}
	return &Reading{file: file, out: bufio.NewWriter(file), left: left}, nil
}

// Add writes the line of a record.
func (reading *Reading) Add(record Record) {
	headers := make([]string, 0, len(record.Headers))
	for _, header := range record.Headers {
		headers = append(headers, hex.EncodeToString([]byte(header.Name))+":"+textOrNull(header.Value))
	}
	fmt.Fprintf(reading.out, "%s\t%d\t%d\t%d\t%s\t%s\t%s\n", record.Topic, record.Partition, record.Offset, record.TimeMs,
		textOrNull(record.Key), textOrNull(record.Value), strings.Join(headers, ","))
	place := Place{record.Topic, record.Partition}
	if end, known := reading.left[place]; known && record.Offset+1 >= end {
		delete(reading.left, place)
	}
}

// Left is how many partitions have not been read to their end.
func (reading *Reading) Left() int {
	return len(reading.left)
}

// Close completes the file.
func (reading *Reading) Close() error {
	if err := reading.out.Flush(); err != nil {
		return err
	}
	return reading.file.Close()
}

// Lacks is the error of a call that the client does not have.
var Lacks = fmt.Errorf("the client has no such call")

// Calls answers one request of admin: the fields of the answer, or an error.
type Calls interface {
	Call(name string, arguments []string) ([]string, error)
}

// Program is what a client has to bring.
type Program struct {
	Produce func(bootstrap, topic, codec string, records []Record) error
	Consume func(bootstrap string, topics []string, path string) error
	Admin   func(bootstrap string) (Calls, error)
}

// Pairs splits KEY=VALUE arguments.
func Pairs(arguments []string) [][2]string {
	pairs := make([][2]string, 0, len(arguments))
	for _, argument := range arguments {
		key, value, _ := strings.Cut(argument, "=")
		pairs = append(pairs, [2]string{key, value})
	}
	return pairs
}

func answer(calls Calls, request string) string {
	words := strings.Split(request, "\t")
	fields, err := calls.Call(words[0], words[1:])
	switch {
	case err == Lacks:
		return "lacks"
	case err != nil:
		return "error\t" + strings.NewReplacer("\n", " ", "\t", " ").Replace(err.Error())
	default:
		return strings.Join(append([]string{"ok"}, fields...), "\t")
	}
}

func (program Program) run(arguments []string) error {
	if len(arguments) < 2 {
		return fmt.Errorf("usage: produce|consume|admin BOOTSTRAP ...")
	}
	command, bootstrap, rest := arguments[0], arguments[1], arguments[2:]
	switch {
	case command == "produce" && len(rest) == 3:
		records, err := readRecords(rest[2])
		if err != nil {
			return err
		}
		return program.Produce(bootstrap, rest[0], rest[1], records)
	case command == "consume" && len(rest) >= 2:
		return program.Consume(bootstrap, rest[1:], rest[0])
	case command == "admin" && len(rest) == 0:
		calls, err := program.Admin(bootstrap)
		if err != nil {
			return err
		}
		requests := bufio.NewScanner(os.Stdin)
		for requests.Scan() {
			fmt.Println(answer(calls, requests.Text()))
		}
		return requests.Err()
	default:
		return fmt.Errorf("unknown command %q with %d arguments", command, len(rest))
	}
}

// Main runs the command of the process's arguments and ends it.
func (program Program) Main() {
	if err := program.run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
