// sarama in the client matrix; program.py says what the commands do.
//
// It reads with its partition consumers, without a group, and produces idempotently, which it allows with one request in flight.
package main

import (
	"fmt"
	"sort"
	"strconv"
	"time"

	"corelane/matrix"
	"github.com/IBM/sarama"
)

var codecs = map[string]sarama.CompressionCodec{
	"none":   sarama.CompressionNone,
	"gzip":   sarama.CompressionGZIP,
	"snappy": sarama.CompressionSnappy,
	"lz4":    sarama.CompressionLZ4,
	"zstd":   sarama.CompressionZSTD,
}

func settings() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Producer.Return.Successes = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Consumer.Return.Errors = true
	config.Net.DialTimeout = matrix.Silence
	config.Net.ReadTimeout = matrix.Silence
	return config
}

// A nil encoder is null; one of no bytes is empty.
func encoded(data []byte) sarama.Encoder {
	if data == nil {
		return nil
	}
	return sarama.ByteEncoder(data)
}

func sent(record matrix.Record, topic string) *sarama.ProducerMessage {
	headers := make([]sarama.RecordHeader, 0, len(record.Headers))
	for _, header := range record.Headers {
		headers = append(headers, sarama.RecordHeader{Key: []byte(header.Name), Value: header.Value})
	}
	return &sarama.ProducerMessage{Topic: topic, Partition: record.Partition, Timestamp: time.UnixMilli(record.TimeMs),
		Key: encoded(record.Key), Value: encoded(record.Value), Headers: headers, Metadata: record.Offset}
}

func produce(bootstrap, topic, codec string, records []matrix.Record) error {
	config := settings()
	config.Producer.Compression = codecs[codec]
	config.Producer.Idempotent = true
	config.Producer.Flush.Frequency = 5 * time.Millisecond
	config.Net.MaxOpenRequests = 1
	producer, err := sarama.NewAsyncProducer([]string{bootstrap}, config)
	if err != nil {
		return err
	}
	defer producer.AsyncClose()
	go func() {
		for _, record := range records {
			producer.Input() <- sent(record, topic)
		}
	}()
	for range records {
		select {
		case done := <-producer.Successes():
			if done.Offset != done.Metadata.(int64) {
				return fmt.Errorf("acknowledged at %d/%d instead of %d", done.Partition, done.Offset, done.Metadata)
			}
		case failure := <-producer.Errors():
			return failure
		case <-time.After(matrix.Silence):
			return fmt.Errorf("no acknowledgement for %s", matrix.Silence)
		}
	}
	return nil
}

func lineOf(message *sarama.ConsumerMessage) matrix.Record {
	line := matrix.Record{Topic: message.Topic, Partition: message.Partition, Offset: message.Offset,
		TimeMs: message.Timestamp.UnixMilli(), Key: message.Key, Value: message.Value}
	for _, header := range message.Headers {
		line.Headers = append(line.Headers, matrix.Header{Name: string(header.Key), Value: header.Value})
	}
	return line
}

// Sends the records of one partition, up to the offset at which it ends, and then nil or what went wrong.
func readPartition(consumer sarama.Consumer, place matrix.Place, end int64, lines chan<- matrix.Record, done chan<- error) {
	if end == 0 {
		done <- nil
		return
	}
	partition, err := consumer.ConsumePartition(place.Topic, place.Partition, sarama.OffsetOldest)
	if err != nil {
		done <- err
		return
	}
	defer partition.AsyncClose()
	for {
		select {
		case message := <-partition.Messages():
			lines <- lineOf(message)
			if message.Offset+1 >= end {
				done <- nil
				return
			}
		case failure := <-partition.Errors():
			done <- failure
			return
		case <-time.After(matrix.Silence):
			done <- fmt.Errorf("nothing read for %s from %v, which ends at %d", matrix.Silence, place, end)
			return
		}
	}
}

// All partitions at once.
func readAll(consumer sarama.Consumer, ends map[matrix.Place]int64, reading *matrix.Reading) error {
	lines, done := make(chan matrix.Record), make(chan error)
	for place, end := range ends {
		go readPartition(consumer, place, end, lines, done)
	}
	for ended := 0; ended < len(ends); {
		select {
		case line := <-lines:
			reading.Add(line)
		case err := <-done:
			if err != nil {
				return err
			}
			ended++
		}
	}
	return reading.Close()
}

func consume(bootstrap string, topics []string, path string) error {
	client, err := sarama.NewClient([]string{bootstrap}, settings())
	if err != nil {
		return err
	}
	defer client.Close()
	ends := make(map[matrix.Place]int64)
	for _, topic := range topics {
		partitions, err := client.Partitions(topic)
		if err != nil {
			return err
		}
		for _, partition := range partitions {
			end, err := client.GetOffset(topic, partition, sarama.OffsetNewest)
			if err != nil {
				return err
			}
			ends[matrix.Place{Topic: topic, Partition: partition}] = end
		}
	}
	reading, err := matrix.NewReading(path, ends)
	if err != nil {
		return err
	}
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return err
	}
	return readAll(consumer, ends, reading)
}

type calls struct {
	client sarama.Client
	admin  sarama.ClusterAdmin
}

func admin(bootstrap string) (matrix.Calls, error) {
	client, err := sarama.NewClient([]string{bootstrap}, settings())
	if err != nil {
		return nil, err
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	return &calls{client, admin}, err
}

func (c *calls) Call(name string, arguments []string) (fields []string, err error) {
	switch name {
	case "cluster":
		return c.cluster()
	case "list":
		topics, err := c.admin.ListTopics()
		for topic := range topics {
			fields = append(fields, topic)
		}
		return fields, err
	}
	topic, rest := arguments[0], arguments[1:]
	switch name {
	case "create":
		return nil, c.create(topic, rest)
	case "describe":
		return c.describe(topic)
	case "partitions":
		total, err := strconv.ParseInt(rest[0], 10, 32)
		if err != nil {
			return nil, err
		}
		return nil, c.admin.CreatePartitions(topic, int32(total), nil, false)
	case "configs", "altered":
		return c.configs(topic, name == "altered")
	case "alter", "reset":
		return nil, c.alter(topic, name, rest)
	case "replace":
		return nil, c.admin.AlterConfig(sarama.TopicResource, topic, values(rest), false)
	case "delete":
		return nil, c.admin.DeleteTopic(topic)
	}
	return c.callOfPartition(name, topic, rest)
}

// The requests whose second argument is a partition.
func (c *calls) callOfPartition(name, topic string, rest []string) ([]string, error) {
	parsed, err := strconv.ParseInt(rest[0], 10, 32)
	if err != nil {
		return nil, err
	}
	partition := int32(parsed)
	switch name {
	case "produce":
		return nil, c.produce(topic, partition, rest[1:])
	case "offset":
		return c.offset(topic, partition, rest[1])
	case "delete-records":
		before, err := strconv.ParseInt(rest[1], 10, 64)
		if err != nil {
			return nil, err
		}
		// The client does not hand out the low watermark of the answer.
		return []string{"-"}, c.admin.DeleteRecords(topic, map[int32]int64{partition: before})
	case "log-dirs":
		return c.logDirs(topic)
	}
	return nil, matrix.Lacks
}

func values(configs []string) map[string]*string {
	values := make(map[string]*string)
	for _, pair := range matrix.Pairs(configs) {
		values[pair[0]] = &pair[1]
	}
	return values
}

func (c *calls) create(topic string, rest []string) error {
	partitions, err := strconv.ParseInt(rest[0], 10, 32)
	if err != nil {
		return err
	}
	detail := sarama.TopicDetail{NumPartitions: int32(partitions), ReplicationFactor: 1, ConfigEntries: values(rest[1:])}
	return c.admin.CreateTopic(topic, &detail, false)
}

func (c *calls) describe(topic string) (fields []string, err error) {
	described, err := c.admin.DescribeTopics([]string{topic})
	if err != nil {
		return nil, err
	}
	if described[0].Err != sarama.ErrNoError {
		return nil, described[0].Err
	}
	for _, partition := range described[0].Partitions {
		fields = append(fields, fmt.Sprintf("%d=%d", partition.ID, partition.Leader))
	}
	return fields, nil
}

func (c *calls) cluster() ([]string, error) {
	brokers, controller, err := c.admin.DescribeCluster()
	fields := []string{strconv.Itoa(int(controller))}
	for _, broker := range brokers {
		fields = append(fields, fmt.Sprintf("%d=%s", broker.ID(), broker.Addr()))
	}
	return fields, err
}

func (c *calls) configs(topic string, altered bool) (fields []string, err error) {
	entries, err := c.admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic})
	for _, entry := range entries {
		switch {
		case !altered:
			fields = append(fields, entry.Name+"="+entry.Value)
		case entry.Source == sarama.SourceTopic:
			fields = append(fields, entry.Name)
		}
	}
	return fields, err
}

func (c *calls) alter(topic, name string, rest []string) error {
	changes := make(map[string]sarama.IncrementalAlterConfigsEntry)
	for key, value := range values(rest) {
		change := sarama.IncrementalAlterConfigsEntry{Operation: sarama.IncrementalAlterConfigsOperationSet, Value: value}
		if name == "reset" {
			change = sarama.IncrementalAlterConfigsEntry{Operation: sarama.IncrementalAlterConfigsOperationDelete}
		}
		changes[key] = change
	}
	return c.admin.IncrementalAlterConfig(sarama.TopicResource, topic, changes, false)
}

func (c *calls) produce(topic string, partition int32, times []string) error {
	producer, err := sarama.NewSyncProducerFromClient(c.client)
	if err != nil {
		return err
	}
	for _, text := range times {
		timeMs, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}
		message := sarama.ProducerMessage{Topic: topic, Partition: partition, Timestamp: time.UnixMilli(timeMs),
			Value: sarama.StringEncoder("admin")}
		if _, _, err := producer.SendMessage(&message); err != nil {
			return err
		}
	}
	return nil
}

func (c *calls) offset(topic string, partition int32, which string) ([]string, error) {
	at, named := map[string]int64{"earliest": sarama.OffsetOldest, "latest": sarama.OffsetNewest}[which]
	if !named {
		timeMs, err := strconv.ParseInt(which, 10, 64)
		if err != nil {
			return nil, err
		}
		at = timeMs
	}
	found, err := c.admin.ListOffsets(map[string]map[int32]int64{topic: {partition: at}}, nil)
	if err != nil {
		return nil, err
	}
	answer := found[topic][partition]
	if answer == nil {
		return nil, fmt.Errorf("no answer for partition %d", partition)
	}
	if answer.Err != nil && answer.Err != sarama.ErrNoError {
		return nil, answer.Err
	}
	return []string{strconv.FormatInt(answer.Offset, 10)}, nil
}

func (c *calls) logDirs(topic string) (fields []string, err error) {
	var brokers []int32
	for _, broker := range c.client.Brokers() {
		brokers = append(brokers, broker.ID())
	}
	described, err := c.admin.DescribeLogDirs(brokers)
	for _, directories := range described {
		for _, directory := range directories {
			for _, found := range directory.Topics {
				for _, partition := range found.Partitions {
					if found.Topic == topic {
						fields = append(fields, fmt.Sprintf("%d=%d", partition.PartitionID, partition.Size))
					}
				}
			}
		}
	}
	sort.Strings(fields)
	return fields, err
}

func main() {
	matrix.Program{Produce: produce, Consume: consume, Admin: admin}.Main()
}
