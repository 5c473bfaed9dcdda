// franz-go in the client matrix; program.py says what the commands do.
//
// It reads partitions directly, without a group, and produces as it does by default: idempotent, several requests in flight.
package main

import (
	"context"
	"fmt"
	"sort"
	"strconv"
	"time"

	"corelane/matrix"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

func bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), matrix.Silence)
}

func sent(record matrix.Record, topic string) *kgo.Record {
	headers := make([]kgo.RecordHeader, 0, len(record.Headers))
	for _, header := range record.Headers {
		headers = append(headers, kgo.RecordHeader{Key: header.Name, Value: header.Value})
	}
	return &kgo.Record{Topic: topic, Partition: record.Partition, Timestamp: time.UnixMilli(record.TimeMs), Key: record.Key,
		Value: record.Value, Headers: headers}
}

func produce(bootstrap, topic, codec string, records []matrix.Record) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codecs[codec]), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(5*time.Millisecond))
	if err != nil {
		return err
	}
	defer client.Close()
	results := make(chan error, len(records))
	for _, record := range records {
		client.Produce(context.Background(), sent(record, topic), func(done *kgo.Record, err error) {
			if err == nil && done.Offset != record.Offset {
				err = fmt.Errorf("acknowledged at %d/%d instead of %d", done.Partition, done.Offset, record.Offset)
			}
			results <- err
		})
	}
	ctx, cancel := bounded()
	defer cancel()
	if err := client.Flush(ctx); err != nil {
		return err
	}
	for range records {
		if err := <-results; err != nil {
			return err
		}
	}
	return nil
}

func readAll(client *kgo.Client, reading *matrix.Reading) error {
	for reading.Left() > 0 {
		ctx, cancel := bounded()
		fetches := client.PollFetches(ctx)
		cancel()
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(record *kgo.Record) {
			line := matrix.Record{Topic: record.Topic, Partition: record.Partition, Offset: record.Offset,
				TimeMs: record.Timestamp.UnixMilli(), Key: record.Key, Value: record.Value}
			for _, header := range record.Headers {
				line.Headers = append(line.Headers, matrix.Header{Name: header.Key, Value: header.Value})
			}
			reading.Add(line)
		})
	}
	return reading.Close()
}

func consume(bootstrap string, topics []string, path string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := bounded()
	defer cancel()
	listed, err := kadm.NewClient(client).ListEndOffsets(ctx, topics...)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return err
	}
	ends := make(map[matrix.Place]int64)
	listed.Each(func(end kadm.ListedOffset) {
		ends[matrix.Place{Topic: end.Topic, Partition: end.Partition}] = end.Offset
		place := map[int32]kgo.Offset{end.Partition: kgo.NewOffset().AtStart()}
		client.AddConsumePartitions(map[string]map[int32]kgo.Offset{end.Topic: place})
	})
	reading, err := matrix.NewReading(path, ends)
	if err != nil {
		return err
	}
	return readAll(client, reading)
}

type calls struct {
	bootstrap string
	client    *kgo.Client
	admin     *kadm.Client
}

func admin(bootstrap string) (matrix.Calls, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return nil, err
	}
	return &calls{bootstrap, client, kadm.NewClient(client)}, nil
}

func (c *calls) Call(name string, arguments []string) ([]string, error) {
	ctx, cancel := bounded()
	defer cancel()
	switch name {
	case "cluster":
		return c.cluster(ctx)
	case "list":
		topics, err := c.admin.ListTopics(ctx)
		return topics.Names(), err
	}
	topic, rest := arguments[0], arguments[1:]
	switch name {
	case "create":
		return nil, c.create(ctx, topic, rest)
	case "describe":
		return c.describe(ctx, topic)
	case "partitions":
		total, err := strconv.Atoi(rest[0])
		if err != nil {
			return nil, err
		}
		answers, err := c.admin.UpdatePartitions(ctx, total, topic)
		return nil, first(err, answers.Error)
	case "configs":
		return c.configs(ctx, topic, func(config kadm.Config) string { return config.Key + "=" + config.MaybeValue() })
	case "altered":
		return c.configs(ctx, topic, func(config kadm.Config) string {
			if config.Source.String() != "DYNAMIC_TOPIC_CONFIG" {
				return ""
			}
			return config.Key
		})
	case "alter", "reset":
		return nil, c.alter(ctx, topic, name, rest)
	case "replace":
		return nil, c.replace(ctx, topic, rest)
	case "delete":
		answers, err := c.admin.DeleteTopics(ctx, topic)
		return nil, first(err, answers.Error)
	}
	return c.callOfPartition(ctx, name, topic, rest)
}

// The requests whose second argument is a partition.
func (c *calls) callOfPartition(ctx context.Context, name, topic string, rest []string) ([]string, error) {
	partition, err := strconv.ParseInt(rest[0], 10, 32)
	if err != nil {
		return nil, err
	}
	switch name {
	case "produce":
		return nil, c.produce(ctx, topic, int32(partition), rest[1:])
	case "offset":
		return c.offset(ctx, topic, int32(partition), rest[1])
	case "delete-records":
		return c.deleteRecords(ctx, topic, int32(partition), rest[1])
	case "log-dirs":
		return c.logDirs(ctx, topic, rest)
	}
	return nil, matrix.Lacks
}

// The error of the request, else the first one in its answer.
func first(err error, inAnswer func() error) error {
	if err != nil {
		return err
	}
	return inAnswer()
}

func (c *calls) create(ctx context.Context, topic string, rest []string) error {
	partitions, err := strconv.ParseInt(rest[0], 10, 32)
	if err != nil {
		return err
	}
	configs := make(map[string]*string)
	for _, pair := range matrix.Pairs(rest[1:]) {
		configs[pair[0]] = kadm.StringPtr(pair[1])
	}
	answer, err := c.admin.CreateTopic(ctx, int32(partitions), 1, configs, topic)
	if err != nil {
		return fmt.Errorf("%w: %s", err, answer.ErrMessage)
	}
	return nil
}

func (c *calls) describe(ctx context.Context, topic string) (fields []string, err error) {
	topics, err := c.admin.ListTopics(ctx, topic)
	if err := first(err, topics.Error); err != nil {
		return nil, err
	}
	for _, partition := range topics[topic].Partitions.Sorted() {
		fields = append(fields, fmt.Sprintf("%d=%d", partition.Partition, partition.Leader))
	}
	return fields, nil
}

func (c *calls) cluster(ctx context.Context) ([]string, error) {
	metadata, err := c.admin.BrokerMetadata(ctx)
	fields := []string{strconv.Itoa(int(metadata.Controller))}
	for _, broker := range metadata.Brokers {
		fields = append(fields, fmt.Sprintf("%d=%s:%d", broker.NodeID, broker.Host, broker.Port))
	}
	return fields, err
}

func (c *calls) configs(ctx context.Context, topic string, shown func(kadm.Config) string) (fields []string, err error) {
	resources, err := c.admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return nil, err
	}
	resource, err := resources.On(topic, nil)
	if err == nil {
		err = resource.Err
	}
	for _, config := range resource.Configs {
		if field := shown(config); field != "" {
			fields = append(fields, field)
		}
	}
	return fields, err
}

func (c *calls) alter(ctx context.Context, topic, name string, rest []string) error {
	var changes []kadm.AlterConfig
	for _, pair := range matrix.Pairs(rest) {
		change := kadm.AlterConfig{Op: kadm.SetConfig, Name: pair[0], Value: kadm.StringPtr(pair[1])}
		if name == "reset" {
			change.Op, change.Value = kadm.DeleteConfig, nil
		}
		changes = append(changes, change)
	}
	answers, err := c.admin.AlterTopicConfigs(ctx, changes, topic)
	return first(err, func() error { return answers[0].Err })
}

func (c *calls) replace(ctx context.Context, topic string, rest []string) error {
	var state []kadm.AlterConfig
	for _, pair := range matrix.Pairs(rest) {
		state = append(state, kadm.AlterConfig{Name: pair[0], Value: kadm.StringPtr(pair[1])})
	}
	answers, err := c.admin.AlterTopicConfigsState(ctx, state, topic)
	return first(err, func() error { return answers[0].Err })
}

func (c *calls) produce(ctx context.Context, topic string, partition int32, times []string) error {
	for _, text := range times {
		timeMs, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}
		record := kgo.Record{Topic: topic, Partition: partition, Timestamp: time.UnixMilli(timeMs), Value: []byte("admin")}
		if err := c.client.ProduceSync(ctx, &record).FirstErr(); err != nil {
			return err
		}
	}
	return nil
}

func (c *calls) offset(ctx context.Context, topic string, partition int32, which string) ([]string, error) {
	var listed kadm.ListedOffsets
	var err error
	switch which {
	case "earliest":
		listed, err = c.admin.ListStartOffsets(ctx, topic)
	case "latest":
		listed, err = c.admin.ListEndOffsets(ctx, topic)
	default:
		timeMs, failure := strconv.ParseInt(which, 10, 64)
		if failure != nil {
			return nil, failure
		}
		listed, err = c.admin.ListOffsetsAfterMilli(ctx, timeMs, topic)
	}
	if err := first(err, listed.Error); err != nil {
		return nil, err
	}
	found, known := listed.Lookup(topic, partition)
	if !known {
		return nil, fmt.Errorf("no answer for partition %d", partition)
	}
	return []string{strconv.FormatInt(found.Offset, 10)}, nil
}

func (c *calls) deleteRecords(ctx context.Context, topic string, partition int32, before string) ([]string, error) {
	offset, err := strconv.ParseInt(before, 10, 64)
	if err != nil {
		return nil, err
	}
	var offsets kadm.Offsets
	offsets.AddOffset(topic, partition, offset, -1)
	answers, err := c.admin.DeleteRecords(ctx, offsets)
	if err := first(err, answers.Error); err != nil {
		return nil, err
	}
	answer, _ := answers.Lookup(topic, partition)
	return []string{strconv.FormatInt(answer.LowWatermark, 10)}, nil
}

func (c *calls) logDirs(ctx context.Context, topic string, partitions []string) (fields []string, err error) {
	var set kadm.TopicsSet
	for _, text := range partitions {
		partition, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return nil, err
		}
		set.Add(topic, int32(partition))
	}
	described, err := c.admin.DescribeAllLogDirs(ctx, set)
	if err != nil {
		return nil, err
	}
	described.Each(func(directory kadm.DescribedLogDir) {
		if directory.Err != nil {
			err = directory.Err
		}
		directory.Topics.Each(func(found kadm.DescribedLogDirPartition) {
			fields = append(fields, fmt.Sprintf("%d=%d", found.Partition, found.Size))
		})
	})
	sort.Strings(fields)
	return fields, err
}

func main() {
	matrix.Program{Produce: produce, Consume: consume, Admin: admin}.Main()
}
